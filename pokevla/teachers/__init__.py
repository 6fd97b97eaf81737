"""Frozen encoders such as SAM and VGGT: images in, features out."""
