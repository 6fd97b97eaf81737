"""Finished evaluations as input: records and settings of one policy, or of all, of an evaluation folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.errors import DataError, UsageError
from pokevla.evaluation.folder import EPISODES, SUMMARY
from pokevla.evaluation.trial_records import TrialRecord, read_records
from pokevla.files.records import as_type
from pokevla.files.texts import read_json_object
from pokevla.recipe.values import differences, value_text

MATCHED = frozenset({"suite", "suites", "tasks", "init_states", "perturbations", "subset", "unavailable_tasks"})
"""Settings that say which trials there are. Trials are matched one by one, so these may differ."""
WITHOUT_EFFECT = frozenset({"workers", "policies", "until"})
"""Settings on which the outcome of a trial does not depend."""
NOTED = frozenset(
    {"actions_per_query", "queries_per_s", "batch_size", "gl", "torch", "pokevla", "accepted_differences"}
)
"""Settings that may differ, and are reported then: how a policy is run, and what rounds otherwise without being another
trial (libraries that draw and compute). All others must be equal, or trials of the same name are not the same
trials."""


@dataclass(frozen=True)
class Evaluated:
    """The trials of one policy in one evaluation."""

    folder: Path
    policy: str
    records: tuple[TrialRecord, ...]
    settings: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Folder and policy, as they are given on the command line."""
        return f"{self.folder}:{self.policy}"


def read_policy(given: Path) -> Evaluated:
    """The policy of `FOLDER`, if it has one only, or of `FOLDER:POLICY`.

    Raises:
        UsageError: no evaluation, not complete, no such policy, or several.
        DataError: a file of it is damaged.
    """
    evaluated = read_policies(given)
    if len(evaluated) > 1:
        names = [one.policy for one in evaluated]
        raise UsageError(f"{given} has several policies: {', '.join(names)}.", f"Name one: {given}:{names[0]}")
    return evaluated[0]


def read_policies(given: Path) -> list[Evaluated]:
    """All policies of `FOLDER`, in their order there, or the one of `FOLDER:POLICY`. Raises as `read_policy`, but for
    several."""
    folder, policy = given, None
    if not folder.is_dir() and ":" in given.name:
        name, _, policy = given.name.partition(":")
        folder = given.parent / name
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a directory.", "Name an evaluation: output/name of its recipe.")
    if not (folder / EPISODES).is_file():
        raise UsageError(f"{folder} is not an evaluation with trials: it has no {EPISODES}.", "Name the folder of one.")
    if not (folder / SUMMARY).is_file():
        raise UsageError(f"The evaluation in {folder} is not complete.", "Run its `pokevla eval` again to continue it.")
    summary = read_json_object(folder / SUMMARY)
    settings = as_type(summary.get("settings"), dict[str, Any], folder / SUMMARY)
    records = read_records(folder / EPISODES)
    names = list(dict.fromkeys(record.policy for record in records))
    if policy is not None and policy not in names:
        raise UsageError(f"{folder} has no policy {policy!r}.", f"It has: {', '.join(names)}.")
    if not names:
        raise DataError(f"{folder / EPISODES} has no trials.", "Evaluate again with --overwrite.")
    return [
        Evaluated(folder, name, tuple(record for record in records if record.policy == name), settings)
        for name in ([policy] if policy is not None else names)
    ]


def settings_that_matter(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Settings whose difference changes the trials, each as `name: value of A, value of B`."""
    return _differing(a, b, lambda name: name not in MATCHED | WITHOUT_EFFECT | NOTED)


def settings_to_note(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Settings that differ and need not be equal, as `settings_that_matter`."""
    return _differing(a, b, lambda name: name in NOTED)


def step_limits(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Step limit by suite. An evaluation has one limit for its one suite, or a limit for each of its suites."""
    limits = settings.get("max_steps")
    if isinstance(limits, dict):
        return limits
    return {} if limits is None else {str(settings.get("suite")): limits}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], counts: Callable[[str], bool]) -> list[str]:
    steps = [step_limits(side) for side in (a, b)]
    common = [suite for suite in steps[0] if suite in steps[1]]  # other suites have no trial in common
    sides = [
        {name: value for name, value in side.items() if name != "max_steps" and counts(name)}
        | {f"max_steps of {suite}": limits[suite] for suite in common if counts("max_steps")}
        for side, limits in zip((a, b), steps, strict=True)
    ]
    return [f"{name}: {', '.join(map(value_text, row))}" for name, row in differences(*sides).items()]
