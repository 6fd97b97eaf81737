"""Recordings of a toy arm in the layouts of other projects."""
