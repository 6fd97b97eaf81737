"""Judging: closed-loop trials, grounding, records, intervals, tables, pictures."""
