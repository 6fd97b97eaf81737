"""Embodiments: descriptions of robots that are stored with data, models and policies."""
