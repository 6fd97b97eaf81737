"""Atomic checkpoint store, retention, resume, export."""
