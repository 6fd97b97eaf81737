"""Models of other projects, computed as their own code computes them."""
