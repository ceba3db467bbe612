"""A run from options to result: what is there already, training, saving, stopping, going on."""
