"""A whole Slurm on one machine."""
