"""The data card: what a dataset holds, and what looks wrong with it."""
