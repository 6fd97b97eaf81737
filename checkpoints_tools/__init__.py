"""Checkpoint tools: thin functions over `pokevla.weights` and `pokevla.checkpoint`."""
