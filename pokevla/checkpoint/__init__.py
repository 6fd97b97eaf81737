"""Saving and loading training state, for any number of ranks."""
