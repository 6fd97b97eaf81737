"""Frozen SAM and VGGT, the feature codec, building and verifying a cache."""
