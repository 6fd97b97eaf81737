"""Where the metrics of a run go: to the sinks that its recipe names, on rank 0 only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pokevla.parts import METRIC_SINKS, get_part
from pokevla.telemetry.jsonl import begin_jsonl, now

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
"""File of a run's metrics, in its directory."""
DEFAULT_SINKS = ("jsonl", "tensorboard")


class MetricSink(Protocol):
    """One place where metrics go. An entry of `pokevla.parts.METRIC_SINKS` makes it: (run_dir, resume_step) -> sink.

    With `resume_step`, lines of later steps that an earlier process has written do not count any more. Any method may
    raise OSError: the log says so once, the training goes on, and the sink gets the next lines too.
    """

    def write(self, values: Mapping[str, Any]) -> None:
        """Take one line. It holds `step` and `time`; values that are no numbers may be left out."""
        ...

    def describe(self, settings: Mapping[str, Any], texts: Mapping[str, str], step: int) -> None:
        """Show what the run is: its settings, and texts (recipe, manifest) as they stand at `step`."""
        ...

    def flush(self) -> None:
        """Hand everything to the system: a process that is killed now loses no line."""
        ...

    def finish(self) -> None:
        """The run has come to its end."""
        ...

    def close(self) -> None:
        """Release what is open, at the end of the process."""
        ...


class JsonlSink:
    """`metrics.jsonl`: one line per call. Every line is handed to the system at once."""

    def __init__(self, run_dir: Path, resume_step: int | None = None) -> None:
        self._lines = begin_jsonl(run_dir / METRICS, resume_step)

    def write(self, values: Mapping[str, Any]) -> None:
        """Append the line."""
        self._lines.write(values)

    def describe(self, settings: Mapping[str, Any], texts: Mapping[str, str], step: int) -> None:
        """Nothing to do: recipe and manifest are files beside it."""

    def flush(self) -> None:
        """Nothing to do: `write` has flushed."""

    def finish(self) -> None:
        """Nothing to do: `events.jsonl` says so."""

    def close(self) -> None:
        """Flush to the disk and close."""
        self._lines.close()


class MetricWriter:
    """Metrics of a run, to several sinks on rank 0, to none on the other ranks."""

    def __init__(
        self, run_dir: Path, rank: int = 0, resume_step: int | None = None, sinks: Sequence[str] = DEFAULT_SINKS
    ) -> None:
        """`sinks` are entries of `pokevla.parts.METRIC_SINKS`. Raises RecipeError for one that is not there."""
        names = sinks if rank == 0 else ()
        self.sinks: list[MetricSink] = [
            get_part("log.sinks", name, METRIC_SINKS)(run_dir, resume_step) for name in names
        ]

        self._failing: set[int] = set()  # indices of sinks whose last call failed

    def write(self, values: Mapping[str, Any]) -> None:
        """Write one line; `values` holds `step`. The time is added. Flushed: a kill loses no line in any place."""
        line = {**values, "time": now()}

        def write_and_flush(sink: MetricSink) -> None:
            sink.write(line)
            sink.flush()

        self._on_each(write_and_flush)

    def flush(self) -> None:
        """Hand everything to the system."""
        self._on_each(lambda sink: sink.flush())

    def describe(self, settings: Mapping[str, Any], texts: Mapping[str, str], step: int) -> None:
        """Show what the run is: its settings, and texts (recipe, manifest) as they stand at `step`."""
        self._on_each(lambda sink: sink.describe(settings, texts, step))

    def finish(self) -> None:
        """The run has come to its end."""
        self._on_each(lambda sink: sink.finish())

    def close(self) -> None:
        """Close all sinks."""
        self._on_each(lambda sink: sink.close())

    def _on_each(self, action: Callable[[MetricSink], None]) -> None:
        """Metrics are not worth a training: a sink that cannot write is reported, once, and left behind."""
        for index, sink in enumerate(self.sinks):
            name = type(sink).__name__
            try:
                action(sink)
            except OSError as error:
                if index not in self._failing:
                    logger.warning("%s cannot write metrics (%s); training goes on", name, error.strerror or error)
                self._failing.add(index)
            else:
                if index in self._failing:
                    logger.warning("%s can write metrics again", name)
                self._failing.discard(index)
