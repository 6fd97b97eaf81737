"""Runs `pokevla` as a user types it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 4 * 3600.0


def run_pokevla(words: Sequence[str]) -> str:
    """What the command prints, run in the repository. Raises RuntimeError, with all it printed, if it fails, and
    TimeoutExpired after `LONGEST_S`."""
    done = subprocess.run(
        [sys.executable, "-m", "pokevla.cli.main", *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=ROOT,
        timeout=LONGEST_S,
    )
    if done.returncode:
        raise RuntimeError(f"pokevla {' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout
