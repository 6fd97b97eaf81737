"""Append-only JSON lines that survive a crash: each line is flushed, and opening removes an incomplete last line."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from pokevla.errors import NO_ROOM, DataError, DiskFullError
from pokevla.files.appending import LineFile
from pokevla.files.names import set_aside
from pokevla.files.texts import open_regular, parse_json, shorten
from pokevla.files.writing import atomic_file

logger = logging.getLogger(__name__)

EVENTS = "events.jsonl"
"""File of a run's `EventLog`, in its directory."""
MAX_LINE_BYTES = 1 << 20
"""Longest line that is read. Ours have less than a kilobyte."""


class JsonlWriter:
    """Appends objects to a file of JSON lines.

    With `resume_step`, lines of later steps are dropped first: a run that had logged step 130 and resumes from step 100
    writes 101 to 130 again, and curves must not fold back.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _drop_later(path, math.inf if resume_step is None else resume_step)
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


def begin_jsonl(path: Path, resume_step: int | None = None) -> JsonlWriter:
    """`JsonlWriter(path, resume_step)`. A file that cannot be read or appended to is set aside with a warning: a run
    does not depend on what it has logged.

    Raises:
        DiskFullError: no room to drop the later lines. OSError: no file can be made there.
    """
    try:
        return JsonlWriter(path, resume_step)
    except DiskFullError:
        raise
    except (DataError, OSError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        logger.warning("%s cannot be continued and is set aside as %s: %s", path, set_aside(path).name, error)
        return JsonlWriter(path)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All objects of the file, without an incomplete last line. Raises what `iterate_jsonl` raises."""
    return list(iterate_jsonl(path))


def iterate_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of the file, one at a time, without an incomplete last line.

    Raises:
        DataError: names the line that is damaged, longer than MAX_LINE_BYTES, or not one of ours (`parse_row`).
    """
    for number, line in enumerate(_lines(path), start=1):
        if line.endswith(b"\n"):
            yield parse_row(line, f"{path}:{number}")
        elif len(line) >= MAX_LINE_BYTES:
            raise DataError(f"{path}:{number} is damaged: longer than {MAX_LINE_BYTES} bytes.", "Delete the line.")


def parse_row(line: bytes, where: str) -> dict[str, Any]:
    """The object of one line, with the fields that readers rely on: `step` is a whole number, `time` and `event` text.

    Raises:
        DataError: it is damaged. The message begins with `where`.
    """
    row = parse_json(line, where, remedy="Delete the line.")
    if not isinstance(row, dict):
        raise DataError(f"{where} is damaged: not an object.", "Delete the line.")
    for name, expected in (("step", int), ("time", str), ("event", str)):
        if name in row and type(row[name]) is not expected:
            raise DataError(f"{where} is damaged: {name} is {shorten(repr(row[name]))}.", "Delete the line.")
    return row


def _lines(path: Path) -> Iterator[bytes]:
    """Lines with their newline; the parts of a longer one than MAX_LINE_BYTES, and an incomplete last one, without."""
    try:
        raw = open_regular(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    with io.BufferedReader(cast(io.RawIOBase, raw)) as file:
        while line := file.readline(MAX_LINE_BYTES):
            yield line


def _drop_later(path: Path, last_step: float) -> None:
    """Remove lines of steps after `last_step` and an incomplete last line, atomically, if there are any.

    Damaged lines stay, because a run goes on without them: readers skip or name them.
    """
    if all(_is_kept(line, last_step) for line in _lines(path)):
        return
    with atomic_file(path) as file:
        for line in _lines(path):
            if _is_kept(line, last_step):
                file.write(line)


def _is_kept(line: bytes, last_step: float) -> bool:
    if not line.endswith(b"\n"):
        return len(line) >= MAX_LINE_BYTES
    try:
        return parse_row(line, "").get("step", 0) <= last_step
    except DataError:
        return True


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
        self._writer = begin_jsonl(path)

    def add(self, event: str, **fields: Any) -> None:
        """Append one event with the time (UTC, ISO 8601)."""
        self._writer.write({"time": now(), "event": event, **fields})

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def now() -> str:
    """The time in UTC as ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
