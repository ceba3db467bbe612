"""Files on the disk: atomic writes, locks, checkpoints and histories."""
