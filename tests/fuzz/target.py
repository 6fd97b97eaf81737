"""What a fuzz target is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Target:
    """One parser: where its valid inputs come from, and how to run it."""

    name: str
    prepare: Callable[[Path], list[bytes]]
    """Fill an empty folder with what the parser needs beside its input; returns valid inputs."""
    parse: Callable[[Path, bytes], Any]
    """Parse one input in the prepared folder. PokeVLAError is allowed, every other exception a finding."""
    is_json: bool = False
    repair: Callable[[bytes], bytes] | None = None
    """Restores a checksum inside an input."""
