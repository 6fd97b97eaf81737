"""What runs in each task of a job: its place, the work, the lock of the run, starting again."""
