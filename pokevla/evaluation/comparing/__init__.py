"""Comparing finished evaluations: which policy is better, and how ours stand beside published results."""
