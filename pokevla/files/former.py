"""Former names, until their last users are converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pokevla.errors import CheckpointError, PokeVLAError
from pokevla.files.failures import named_error
from pokevla.files.texts import write_json, write_text

_REMEDY = "Free some space, or lower checkpoint.keep_last; then go on with: pokevla resume RUN"


def write_text_atomically(path: Path, text: str) -> None:
    """As `write_text`."""
    write_text(path, text, kind=CheckpointError, remedy=_REMEDY)


def write_json_atomically(path: Path, content: Any) -> None:
    """As `write_json`, with sorted keys."""
    write_json(path, content, sort_keys=True, kind=CheckpointError, remedy=_REMEDY)


def as_named_error(error: Exception, path: Path) -> PokeVLAError:
    """As `named_error`."""
    return named_error(error, path, kind=CheckpointError, remedy=_REMEDY)
