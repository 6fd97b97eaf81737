"""Sections of what a training reads, each in a module."""
