"""Demonstration files: recording, storing, replaying for masks."""
