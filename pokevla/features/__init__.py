"""Teacher features: computed once, stored in a cache, read in training."""
