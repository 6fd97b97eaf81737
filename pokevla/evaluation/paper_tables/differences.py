"""In what our trials differ from those behind a table of the paper, one sentence each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from pokevla.evaluation.comparing.folders import Evaluated, step_limits
from pokevla.evaluation.paper_tables.paper import PaperTable
from pokevla.evaluation.trial_records import TrialRecord

MAX_STEPS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}
"""Step limits of OpenVLA-OFT (experiments/robot/libero/run_libero_eval.py), whose protocol the field uses."""
BASELINES = frozenset({"untrained", "blanked", "replay", "expert"})
"""Kinds of policies that show what a trained one is worth."""
DARKER_FROM = (3, 3, 3)
"""First MuJoCo version that renders LIBERO darker (github.com/Lifelong-Robot-Learning/LIBERO/issues/88)."""


def describe_differences(
    table: PaperTable, records: Sequence[TrialRecord], evaluated: Sequence[Evaluated]
) -> list[str]:
    """Sentences about number and kind of trials, protocol and rendering; with the folders, unless all are meant.

    Args:
        records: our trials in this table.
        evaluated: the evaluations that they are from.
    """
    lines = [*_trial_counts(table, records), *_missing(table, records)]
    for sentence, folders in _by_sentence(table, evaluated).items():
        where = "" if len(folders) == len({str(one.folder) for one in evaluated}) else f" ({', '.join(folders)})"
        lines.append(f"{sentence}{where}.")
    return lines


def _trial_counts(table: PaperTable, records: Sequence[TrialRecord]) -> list[str]:
    counts = Counter((record.policy, record.suite) for record in records)
    lines = []
    for suite, expected in table.trials.items():
        found = sorted({number for (_, of_suite), number in counts.items() if of_suite == suite})
        if found and found != [expected]:
            ours = " or ".join(map(str, found))
            lines.append(f"{suite}: {ours} trials of a policy; the paper has {expected}.")
    crashed = sum(record.outcome == "crashed" for record in records)
    if crashed:
        what = "1 trial crashed and counts" if crashed == 1 else f"{crashed} trials crashed and count"
        lines.append(f"{what} neither as success nor as failure.")
    return lines


def _missing(table: PaperTable, records: Sequence[TrialRecord]) -> list[str]:
    """Perturbations without trials: the columns of suites then hold the others only."""
    lines = []
    for policy in dict.fromkeys(record.policy for record in records):
        kinds = {record.perturbation for record in records if record.policy == policy}
        missing = [kind for kind in table.perturbations.values() if kind not in kinds]
        if missing:
            lines.append(
                f"{policy}: no trials of {', '.join(missing)}; the rates of suites are of the other perturbations."
            )
    return lines


def _by_sentence(table: PaperTable, evaluated: Sequence[Evaluated]) -> dict[str, list[str]]:
    """Sentence -> folders that it is about."""
    folders: dict[str, list[str]] = {}
    for one in evaluated:
        for sentence in (*_sentences(one), *(_perturbed(one) if table.perturbed else ())):
            names = folders.setdefault(sentence, [])
            if str(one.folder) not in names:
                names.append(str(one.folder))
    return folders


def _sentences(one: Evaluated) -> Iterable[str]:
    settings = one.settings
    kind = (settings.get("policies") or {}).get(one.policy, "model")
    if kind in BASELINES:
        yield f"{one.policy} is a baseline of kind {kind}"
    if settings.get("target_shift_m") is not None:
        yield "The target object was moved at random; the paper has LIBERO's placements"
    if settings.get("fast_rendering"):
        yield "Fast rendering, whose pixels differ"
    if settings.get("image_size", 256) != 256:
        yield f"Pictures of {settings['image_size']} px; OpenVLA-OFT's protocol has 256"
    yield from _steps(one)
    if settings.get("fixtures", "fixed") == "fixed":
        yield "Cabinet and stove stand as in the first trial of a task; OpenVLA-OFT's protocol draws them in each trial"
    if settings.get("until") is not None:
        yield "Trials could end early (trials.until), so that rates lean towards the outcome that ended them"
    yield _simulator(settings.get("mujoco"))


def _perturbed(one: Evaluated) -> Iterable[str]:
    """What our LIBERO-Plus does otherwise than the official code (github.com/sylvestf/LIBERO-plus)."""
    instructions = one.settings.get("instructions")
    if instructions == "filename":
        yield "Instructions are file names as in the official code, so most of them contain the perturbation"
    elif instructions is not None:
        what = {"clean": "of the base tasks", "bddl": "of the task files"}.get(instructions, str(instructions))
        yield f"Instructions are those {what}; the official code takes file names, which contain the perturbation"
    if one.settings.get("robot_init") == "full":
        yield "Perturbed joints are kept in Robot Initial States; the official code sets the nominal ones back"
    unavailable = one.settings.get("unavailable_tasks")
    if unavailable:
        yield f"{len(unavailable)} tasks could not be run; summary.json has the reasons"


def _steps(one: Evaluated) -> Iterable[str]:
    limits = step_limits(one.settings)
    suites = list(dict.fromkeys(record.suite for record in one.records))
    other = [suite for suite in suites if limits.get(suite, MAX_STEPS.get(suite)) != MAX_STEPS.get(suite)]
    for suite in other:
        yield f"At most {limits[suite]} steps in {suite}; OpenVLA-OFT's protocol has {MAX_STEPS.get(suite, 'none')}"
    settle = one.settings.get("settle_steps", 10)
    if settle != 10:
        yield f"{settle} idle steps before a trial; OpenVLA-OFT's protocol has 10"


def _simulator(version: Any) -> str:
    if not isinstance(version, str):
        return "MuJoCo of unknown version; the paper does not name its own"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    darker = ", which renders darker than versions up to 3.3.2" if numbers >= DARKER_FROM else ""
    return f"MuJoCo {version}{darker}; the paper does not name its own"
