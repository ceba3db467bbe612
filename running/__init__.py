"""A run from options to result: start, session, saving, resuming, stopping, printing."""
