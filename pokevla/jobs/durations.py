"""Durations in Slurm's notation."""

from __future__ import annotations

import re


def parse_duration_s(text: str) -> int | None:
    """Seconds of `[D-]HH:MM:SS`, `MM:SS` or minutes; None for UNLIMITED or anything else."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        return None
    days, first, second, third = (int(part) if part is not None else None for part in match.groups())
    if days is not None or third is not None:  # [D-]HH[:MM[:SS]]
        return (days or 0) * 86400 + (first or 0) * 3600 + (second or 0) * 60 + (third or 0)
    return (first or 0) * 60 + (second or 0)  # MM[:SS]


def format_duration(seconds: int) -> str:
    """`seconds` as H:MM:SS, which `parse_duration_s` can read."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
