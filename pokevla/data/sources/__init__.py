"""Converters: each turns one raw source into a dataset directory."""
