"""Rules that join several fields of a recipe, and the metadata of datasets."""
