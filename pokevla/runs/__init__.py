"""The run directory: file names, checks before a run, permitted changes, lock, checkpoints, end."""
