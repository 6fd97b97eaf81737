"""Verbs that make and inspect data."""
