"""Imports small published checkpoints for tests."""

from __future__ import annotations

from pathlib import Path

from pokevla.weights.conversion.importing import import_weights, open_source
from pokevla.weights.conversion.weight_format import ImportRequest
from tests.published_checkpoints import DDP, PlainVLA, write_published


def import_published(plain: PlainVLA, folder: Path, *, prefix: str = DDP, shards: int = 1) -> Path:
    """Write a checkpoint below `folder` and import it; returns the imported folder."""
    source = write_published(folder / "source", plain, prefix=prefix, shards=shards)
    out = folder / "imported"
    import_weights(ImportRequest(plain.kind, open_source(plain.kind, source), preset="tiny"), out)
    return out
