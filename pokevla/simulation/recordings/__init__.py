"""Demonstrations as files: made, stored, replayed for masks."""
