"""The report: read the histories of runs and compare them in text, numbers and a figure."""
