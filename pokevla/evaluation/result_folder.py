"""The folder of an evaluation that is written at its end, complete or not at all: open loop, VLM benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.errors import DataError
from pokevla.evaluation.folder import SUMMARY
from pokevla.files.ownership import refuse_foreign
from pokevla.files.texts import read_json
from pokevla.files.writing import refuse_second_writer


@dataclass(frozen=True)
class ResultFolder:
    """How the folder of one kind of evaluation is recognised, and what is written there."""

    kind: str
    """`kind` in its summary."""
    noun: str
    """For messages."""
    files: tuple[str, ...]
    """Patterns of the files that belong to it."""

    def summary(self, folder: Path) -> dict[str, Any] | None:
        """`summary.json` of a folder of this kind; None if it is none. DataError if the file is damaged."""
        path = folder / SUMMARY
        content = read_json(path) if path.is_file() else None
        return content if isinstance(content, dict) and content.get("kind") == self.kind else None

    def refuse(self, out: Path, *, overwrite: bool) -> None:
        """Refuse a folder that cannot be written, before any work.

        Raises:
            DataError: it exists and is something else, or `overwrite` is False; or another process writes it.
        """
        refuse_second_writer(out)
        if not out.exists():
            return
        if not overwrite:
            raise DataError(f"{out} already exists.", "Choose another folder with --out, or add --overwrite.")
        self.refuse_other(out)

    def refuse_other(self, out: Path) -> None:
        """Refuse to replace a folder that is something else, or holds other files. Raises DataError."""
        if self.summary(out) is None:
            raise DataError(f"{out} is no {self.noun}: it is not replaced.", "Choose another folder.")
        refuse_foreign(out, self.noun, self.files)
