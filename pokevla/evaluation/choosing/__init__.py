"""Chooses a checkpoint by trials that the test never uses."""
