"""The tables of a dataset for training: read by row from mapped files, with no Python object per row."""
