"""Rules that join several fields of a recipe, and what a data set says about itself."""
