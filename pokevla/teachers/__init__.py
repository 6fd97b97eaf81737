"""Frozen encoders, SAM and VGGT among them: images in, features out."""
