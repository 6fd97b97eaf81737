"""Recipes: schema, loading, checks, planning."""
