"""Slurm as a launcher: submission, job state, requeue, cluster profiles."""
