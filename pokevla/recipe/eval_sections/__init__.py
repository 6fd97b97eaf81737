"""Sections of recipes of kind eval: the trials, and the policies that act in them."""
