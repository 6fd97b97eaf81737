"""Planning: FLOPs, memory, hours and disk of a recipe."""
