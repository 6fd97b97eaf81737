"""Weights & Biases as a sink of metrics. Needs the extra `wandb`; without a network set WANDB_MODE=offline.

Project, entity and key are those of `wandb`'s own variables (WANDB_PROJECT, WANDB_ENTITY, WANDB_API_KEY).
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pokevla.errors import DataError
from pokevla.files.texts import read_text, write_text

logger = logging.getLogger(__name__)

DEFAULT_PROJECT = "pokevla"
RUN_ID = "wandb_id"
"""File in the run directory with the id of the run at Weights & Biases, under which a resumed run goes on."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_ID = 1000


class WandbSink:
    """Curves and settings of a run at Weights & Biases.

    A step that is written again after a resume is left out by the server: it has these numbers already, since a resumed
    run repeats its steps bit for bit.
    """

    package = "wandb"

    def __init__(self, run_dir: Path, resume_step: int | None = None) -> None:
        """`resume_step` is not needed: steps that exist are kept."""
        import wandb  # pyright: ignore[reportMissingImports]

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", DEFAULT_PROJECT),
            name=run_dir.name,
            id=_run_id(run_dir),
            resume="allow",
            dir=str(run_dir),
        )

    def write(self, values: Mapping[str, Any]) -> None:
        """Log every number of the line at its step."""
        numbers = {
            name: value
            for name, value in values.items()
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        self._run.log(numbers, step=values["step"])

    def describe(self, settings: Mapping[str, Any], texts: Mapping[str, str], step: int) -> None:
        """Send the settings. Recipe and manifest stay in the run directory."""
        self._run.config.update(dict(settings), allow_val_change=True)

    def flush(self) -> None:
        """Nothing to do: a process of wandb's own sends what was logged."""

    def finish(self) -> None:
        """Nothing to do: `close` ends the run."""

    def close(self) -> None:
        """Send what is left, and end the run at the server until it is resumed."""
        self._run.finish()


def _run_id(run_dir: Path) -> str:
    """The stored id, or a new one if there is none or it is damaged."""
    path = run_dir / RUN_ID
    if path.exists():
        try:
            stored = read_text(path, max_bytes=_MAX_ID).strip()
        except DataError as error:
            logger.warning("the curves begin anew at Weights & Biases: %s", error)
        else:
            if _ID.fullmatch(stored):
                return stored
            logger.warning("the curves begin anew at Weights & Biases: %s holds no id", path)
    new = uuid.uuid4().hex
    try:
        write_text(path, new)
    except DataError as error:
        logger.warning("the next start begins anew at Weights & Biases: %s", error)
    return new
