"""Watching runs: live view, list of runs, HTML report, comparison."""
