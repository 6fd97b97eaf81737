"""Reads the embodiment from `dataset.json`, `COMPLETE.json` of a checkpoint, or `config.json` of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError

KEY = "embodiment"
"""Key of the description in the three files."""


def read_embodiment(stored: Any, path: Path) -> Embodiment:
    """The robot of a file, from the value stored under `KEY`. Without a description (None or empty) it is LIBERO's,
    the only robot before descriptions were introduced.

    Raises:
        DataError: the description is damaged or has another schema version. The message names `path`.
    """
    if not stored:
        return LIBERO
    try:
        return Embodiment.from_dict(stored)
    except DataError as error:
        raise DataError(f"{path}: {error.message}", error.remedy) from error
