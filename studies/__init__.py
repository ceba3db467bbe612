"""Studies: lists of runs, run here or on a cluster."""
