"""Success rates with intervals of groups of trials: by task, suite, perturbation, level, or several of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pokevla.evaluation.statistics.intervals import Z_95, wilson_interval
from pokevla.evaluation.trial_records import TrialRecord

GroupField = Literal["policy", "suite", "task", "perturbation", "level"]
"""A field of TrialRecord that trials are grouped by."""


@dataclass(frozen=True)
class GroupResult:
    """Trials of one group. Crashed trials are counted apart, because they say nothing about the policy."""

    successes: int
    trials: int
    crashed: int
    low: float  # Wilson interval of the success rate
    high: float

    @property
    def rate(self) -> float | None:
        """Success rate; None without trials."""
        return self.successes / self.trials if self.trials else None


def group_results(
    records: Iterable[TrialRecord], by: Sequence[GroupField], z: float = Z_95
) -> dict[tuple[str | int | None, ...], GroupResult]:
    """Results by the values of the fields `by`, in order of first appearance; without fields, of all records: `{():
    ...}`.

    A record without perturbation or level is in a group of its own, whose value is None. No records, no groups.
    """
    groups: dict[tuple[str | int | None, ...], list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(tuple(getattr(record, name) for name in by), []).append(record)
    return {values: result_of(members, z) for values, members in groups.items()}


def result_of(records: Iterable[TrialRecord], z: float = Z_95) -> GroupResult:
    """Result of one group."""
    outcomes = [record.outcome for record in records]
    crashed = outcomes.count("crashed")
    successes, trials = outcomes.count("success"), len(outcomes) - crashed
    return GroupResult(successes, trials, crashed, *wilson_interval(successes, trials, z))
