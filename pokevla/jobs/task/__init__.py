"""What runs in each task of a job: its ranks, the work, the lock of the run, restarts."""
