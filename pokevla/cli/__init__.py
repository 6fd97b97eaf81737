"""The pokevla command: one thin module per verb."""
