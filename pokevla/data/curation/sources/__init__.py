"""The published question sets, one module each."""
