"""Evaluation: closed-loop trials, grounding, records, intervals, tables, videos."""
