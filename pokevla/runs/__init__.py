"""The run directory: names of its files, checks before a run, what may change in it, lock, checkpoints, end."""
