"""PokeVLM and PokeVLA and their parts. Takes plain arguments, never a recipe."""
