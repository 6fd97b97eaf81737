"""Compiled models: kept by an environment, and on disk."""
