"""Batches made by another process, in memory that both share."""
