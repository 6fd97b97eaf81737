"""The run directory: its files, what may change in it, its lock, its checkpoints, its end."""
