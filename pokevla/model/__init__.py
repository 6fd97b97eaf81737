"""PokeVLM, PokeVLA and their parts. They take plain arguments, never a recipe."""
