"""A complete Slurm on one machine, for tests."""
