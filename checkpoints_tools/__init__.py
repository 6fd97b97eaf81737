"""Thin tools over pokevla.checkpoint."""
