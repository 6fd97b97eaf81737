"""Records of trials, one JSON line each, and their summary."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pokevla.evaluation.statistics.intervals import wilson_interval
from pokevla.files.failures import naming_errors
from pokevla.files.records import as_type
from pokevla.files.texts import parse_json, read_text
from pokevla.files.writing import atomic_path

Outcome = Literal["success", "failure", "crashed"]


@dataclass(frozen=True)
class TrialRecord:
    """One finished trial. `crashed` means that the simulator died; it does not count as a failure of the policy."""

    policy: str
    suite: str
    task_index: int
    task: str
    trial: int
    init_state_index: int
    target_shift: tuple[float, float] | None  # metres, added to the target object's x and y
    outcome: Outcome
    steps: int  # actions executed
    queries: int  # action chunks requested
    seconds: float  # wall clock
    error: str | None = None
    video: str | None = None  # relative to the evaluation directory
    mask_iou: float | None = None  # mean over queries and views, if masks were predicted
    perturbation: str | None = None  # category of LIBERO-Plus ("Camera Viewpoints", ...), null without perturbation
    level: int | None = None  # difficulty of the perturbation in LIBERO-Plus, from 1 to 5
    seed: int | None = None
    attempts: int = 1  # more than one if the simulator crashed and the trial was run again
    picture: str | None = None  # first and last observation, relative to the evaluation directory
    gl: str = ""  # what rendered it: back end and renderer
    versions: dict[str, str] = field(default_factory=dict)  # of what decides the result: simulator, torch, ours
    spent: dict[str, float] = field(default_factory=dict)  # seconds by activity (pokevla.evaluation.running.messages)

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Identifies a trial within one evaluation: policy, suite, task, initial state."""
        return (self.policy, self.suite, self.task_index, self.init_state_index)


def append_record(path: Path, record: TrialRecord) -> None:
    """Append one line to `path` and flush it, so that a killed evaluation keeps its finished trials.

    Raises:
        DiskFullError: disk full. Earlier lines stay; the incomplete one is removed when the evaluation continues.
    """
    with naming_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(_line(record))


def _line(record: TrialRecord) -> str:
    return json.dumps(dataclasses.asdict(record)) + "\n"


def read_records(path: Path) -> list[TrialRecord]:
    """Read `episodes.jsonl`; a missing file has no records. An incomplete last line (from a kill) is skipped; any other
    damage raises DataError with the line number."""
    if not path.exists():
        return []
    remedy = "Evaluate again with --overwrite."
    lines = read_text(path, remedy=remedy).split("\n")[:-1]  # after the last newline: nothing, or an incomplete line
    return [
        as_type(parse_json(line, f"{path}:{number}", remedy=remedy), TrialRecord, f"{path}:{number}", remedy=remedy)
        for number, line in enumerate(lines, start=1)
    ]


def rewrite_records(path: Path, records: Iterable[TrialRecord]) -> None:
    """Replace the file by these records. This also removes an incomplete last line."""
    with atomic_path(path) as temporary:
        temporary.write_text("".join(_line(record) for record in records), encoding="utf-8")


def summarise(records: Iterable[TrialRecord]) -> dict[str, dict[str, Any]]:
    """Results by policy, in order of first appearance.

    `trials` counts successes and failures; crashed trials are counted separately, because they say nothing about the
    policy. `mean_steps` and `mean_seconds` are means over the counted trials.
    """
    by_policy: dict[str, list[TrialRecord]] = {}
    for record in records:
        by_policy.setdefault(record.policy, []).append(record)
    return {policy: _figures(of_policy) for policy, of_policy in by_policy.items()}


def _figures(records: list[TrialRecord]) -> dict[str, Any]:
    counted = [record for record in records if record.outcome != "crashed"]
    successes = sum(record.outcome == "success" for record in counted)
    low, high = wilson_interval(successes, len(counted))
    ious = [record.mask_iou for record in counted if record.mask_iou is not None]
    return {
        "successes": successes,
        "trials": len(counted),
        "crashed": len(records) - len(counted),
        "low": low,
        "high": high,
        "mean_steps": _mean([record.steps for record in counted]),
        "mean_seconds": _mean([record.seconds for record in counted]),
        "mask_iou": _mean(ious),
    }


def _mean(values: list[float] | list[int]) -> float | None:
    return sum(values) / len(values) if values else None
