"""Append-only JSON lines that survive a crash: each line is flushed, and opening removes an incomplete last line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pokevla.errors import DataError
from pokevla.files.appending import LineFile
from pokevla.files.texts import write_text

EVENTS = "events.jsonl"
"""File of a run's `EventLog`, in its directory."""


class JsonlWriter:
    """Appends objects to a file of JSON lines.

    With `resume_step`, lines of later steps are dropped first: a run that had logged step 130 and resumes from step 100
    writes 101 to 130 again, and curves must not fold back.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _rewrite(path, lambda row: resume_step is None or row.get("step", 0) <= resume_step)
        self._lines = LineFile(path)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one object; on a full disk it waits in memory. Non-finite numbers become null: JSON has none."""
        # A path that is not UTF-8 holds lone surrogates.
        text = json.dumps(_finite(row), ensure_ascii=False) + "\n"
        self._lines.write(text.encode(errors="backslashreplace"))

    def close(self) -> None:
        """Sync to disk and close. Closing twice is allowed."""
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All objects of the file, without an incomplete last line. DataError names any other damaged line."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number} is not JSON: {error.msg}.", "Delete the line.") from error
    return rows


def _rewrite(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the lines for which `keep` is true, atomically."""
    before = path.read_bytes()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in read_jsonl(path) if keep(row))
    if text.encode() == before:
        return
    write_text(path, text)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class EventLog:
    """`events.jsonl`: what happened to a run and when (started, resumed, saved, skipped, preempted, finished)."""

    def __init__(self, path: Path) -> None:
        self._writer = JsonlWriter(path)

    def add(self, event: str, **fields: Any) -> None:
        """Append one event with the time (UTC, ISO 8601)."""
        self._writer.write({"time": now(), "event": event, **fields})

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
