"""Results by task, suite, perturbation and level."""

from __future__ import annotations

import dataclasses

from pokevla.evaluation.statistics.groups import group_results
from pokevla.evaluation.statistics.intervals import wilson_interval
from pokevla.evaluation.trial_records import Outcome, TrialRecord


def record(outcome: Outcome, suite: str, task: str, perturbation: str | None, level: int | None) -> TrialRecord:
    return TrialRecord(
        policy="p", suite=suite, task_index=0, task=task, trial=0, init_state_index=0, target_shift=None,
        outcome=outcome, steps=1, queries=1, seconds=1.0, perturbation=perturbation, level=level,
    )  # fmt: skip


RECORDS = [
    record("success", "spatial", "bowl", "Sensor Noise", 1),
    record("failure", "spatial", "bowl", "Sensor Noise", 2),
    record("crashed", "spatial", "plate", "Light Conditions", None),
    record("success", "goal", "stove", None, None),
]


def test_any_field_or_several_divide_the_trials() -> None:
    assert list(group_results(RECORDS, ["suite"])) == [("spatial",), ("goal",)]
    assert list(group_results(RECORDS, ["task"])) == [("bowl",), ("plate",), ("stove",)]
    assert list(group_results(RECORDS, ["perturbation", "level"])) == [
        ("Sensor Noise", 1), ("Sensor Noise", 2), ("Light Conditions", None), (None, None),
    ]  # fmt: skip


def test_each_group_has_its_interval_and_counts_crashes_apart() -> None:
    groups = group_results(RECORDS, ["suite"])
    spatial = groups["spatial",]
    assert (spatial.successes, spatial.trials, spatial.crashed, spatial.rate) == (1, 2, 1, 0.5)
    assert (spatial.low, spatial.high) == wilson_interval(1, 2)
    (everything,) = group_results(RECORDS, []).values()
    assert (everything.successes, everything.trials, everything.crashed) == (2, 3, 1)


def test_a_group_of_crashed_trials_has_no_rate() -> None:
    (group,) = group_results([dataclasses.replace(RECORDS[0], outcome="crashed")], ["suite"]).values()
    assert (group.rate, group.low, group.high) == (None, 0.0, 1.0)
