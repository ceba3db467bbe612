"""What runs say together: reading their histories, and comparing them in words, numbers and a figure."""
