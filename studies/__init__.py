"""Lists of runs, and what runs them here or hands them to a cluster."""
