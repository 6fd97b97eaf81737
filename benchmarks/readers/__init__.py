"""Formats that feature records are read from, side by side (benchmarks/reader.py)."""
