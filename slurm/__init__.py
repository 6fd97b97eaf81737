"""Slurm launcher, cluster profiles, preflight, chains."""
