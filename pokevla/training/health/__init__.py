"""Checks on a running training: guards, watchdog, stragglers, signals."""
