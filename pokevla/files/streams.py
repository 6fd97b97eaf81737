"""What a program prints, on a terminal or into a log of any encoding."""

from __future__ import annotations

import io
import sys


def replace_unprintable() -> None:
    """Print `?` for a character that the encoding of stdout or stderr lacks, instead of failing. Called once, by the
    entry point of a process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
