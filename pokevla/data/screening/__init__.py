"""Samples that should not be trained on: duplicates, contradictions, and what benchmarks ask."""
