"""Asking a PokeVLM about images."""
