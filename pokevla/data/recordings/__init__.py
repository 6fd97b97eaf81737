"""Recordings of any robot, converted to datasets: one path for all formats."""
