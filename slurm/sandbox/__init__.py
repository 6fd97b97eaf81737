"""A complete Slurm on one machine, to try and test jobs."""
