"""Recordings in HDF5 files of any layout, which a map describes."""
