"""The embodiment that a file names: `dataset.json`, `COMPLETE.json` of a checkpoint, `config.json` of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError

KEY = "embodiment"
"""Where the three files keep the description."""


def read_embodiment(stored: Any, path: Path) -> Embodiment:
    """The robot of a file, from what it holds under `KEY`. Without a description (None or empty) it is LIBERO's:
    files from before embodiments were described know no other robot.

    Raises:
        DataError: the description is damaged or of another schema version; names `path`.
    """
    if not stored:
        return LIBERO
    try:
        return Embodiment.from_dict(stored)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", error.remedy) from error
