"""Features of the teachers: stored once in a cache, read back in training."""
