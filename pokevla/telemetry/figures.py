"""Figures as text for people: numbers, shares, durations. Never shortened, and with the unit where there is one."""

from __future__ import annotations


def number(value: float | None) -> str:
    """A whole number as it is, others with four significant digits; `not finite` for None, which is how JSON lines hold
    such a value."""
    return "not finite" if value is None else str(value) if isinstance(value, int) else f"{value:.4g}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage."""
    return "-" if share is None else f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def duration(seconds: float | None) -> str:
    """0.25 s, 12 s, 3 min 20 s, 5 h 02 min, 3 d 04 h."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"
