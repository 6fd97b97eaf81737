"""Converters. Each turns one raw source into a dataset directory."""
