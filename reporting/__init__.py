"""The report: histories compared in text, numbers and a figure."""
