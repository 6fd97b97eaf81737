"""Which trials of two policies are the same trial."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pokevla.errors import DataError
from pokevla.evaluation.comparing.folders import Evaluated
from pokevla.evaluation.trial_records import TrialRecord

ContentKey = tuple[str, str, int, tuple[float, float] | None, str | None, int | None]
"""What makes a trial: suite, task, initial state, shift of the target, perturbation, level. Environment, seed and
protocol are settings of the whole evaluation."""


@dataclass(frozen=True)
class Matched:
    """Trials of two policies. Crashed ones are in `crashed` only."""

    pairs: tuple[tuple[TrialRecord, TrialRecord], ...]  # in the order of A
    crashed: int  # trials of both that crashed for one of them
    only_in_a: int
    only_in_b: int


def content_key(record: TrialRecord) -> ContentKey:
    """Identifies a trial in any evaluation with the same settings."""
    return (
        record.suite, record.task, record.init_state_index, record.target_shift, record.perturbation, record.level,
    )  # fmt: skip


def match_trials(a: Evaluated, b: Evaluated) -> Matched:
    """Pair the trials of A and B. DataError if an evaluation has a trial twice."""
    of_a, of_b = _by_content(a), _by_content(b)
    common = [(record, of_b[key]) for key, record in of_a.items() if key in of_b]
    pairs = tuple(pair for pair in common if not is_crashed(pair))
    return Matched(pairs, len(common) - len(pairs), len(of_a) - len(common), len(of_b) - len(common))


def is_crashed(records: Iterable[TrialRecord]) -> bool:
    """Whether the simulator crashed in one of the trials."""
    return any(record.outcome == "crashed" for record in records)


def _by_content(evaluated: Evaluated) -> dict[ContentKey, TrialRecord]:
    by_content: dict[ContentKey, TrialRecord] = {}
    for record in evaluated.records:
        key = content_key(record)
        if key in by_content:
            raise DataError(
                f"{evaluated.folder} has task {record.task} of {record.suite} from initial state "
                f"{record.init_state_index} twice for policy {evaluated.policy}.",
                "Evaluate again with --overwrite.",
            )
        by_content[key] = record
    return by_content
