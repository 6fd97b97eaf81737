"""Provenance of a dataset: the command that made it and the input files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xxhash

import pokevla
from pokevla.telemetry.code_version import code_commit


def made_by(command: str, **settings: Any) -> dict[str, Any]:
    """Entry `made_by` of dataset.json: command, settings, package version and commit. Contains no times or paths."""
    return {"command": command, "settings": settings, "pokevla": pokevla.__version__, "commit": code_commit()}


def source_entry(path: Path, **facts: Any) -> dict[str, Any]:
    """Entry of `sources` in dataset.json: name, size and xxh64 of one input file, plus `facts` about it."""
    digest = xxhash.xxh64()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return {"file": path.name, "size_bytes": path.stat().st_size, "xxh64": digest.hexdigest(), **facts}
