"""Results of trials for the report: rates by suite, perturbation and level, a radar of them, a gallery of failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pokevla.evaluation.drawing.videos import trial_name
from pokevla.evaluation.folder import PICTURES
from pokevla.evaluation.statistics.groups import GroupField, GroupResult, group_results
from pokevla.evaluation.trial_records import TrialRecord

FAILURES_PER_TASK, FAILURES = 3, 24
"""Pictures in the gallery: 25 kB each, in a page that is one file."""
SHEETS_PER_TASK, SHEETS = 2, 12
"""Sheets of trials: about 300 kB each."""
LISTED_TASKS = 40
"""With more tasks only their number is told."""
RADAR_SIZE, RADAR_RADIUS, COLOURS = 320, 105, 6
GROUPS: tuple[tuple[GroupField, str], ...] = (
    ("suite", "Suite"),
    ("perturbation", "Perturbation"),
    ("level", "Level of the perturbation"),
)


def breakdowns(records: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """Tables of success rates with intervals, by suite, perturbation and level, where there are several."""
    tables = []
    for field, title in GROUPS:
        results = group_results(records, [field, "policy"])
        order = sorted((key for key in results if key[0] is not None), key=lambda key: str(key[0]))
        if len({value for value, _ in order}) < 2:
            continue
        rows = [{"name": str(key[0]), "policy": key[1], **_shown(results[key])} for key in order]
        tables.append({"title": title, "rows": rows})
    return tables


def _shown(result: GroupResult) -> dict[str, Any]:
    return {
        "successes": result.successes, "trials": result.trials, "crashed": result.crashed,
        "low": result.low, "high": result.high, "rate": result.rate or 0.0,
    }  # fmt: skip


def radar(records: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """Success rate by perturbation as a polygon for each policy, 0 in the centre and 1 at the rim, as in the paper's
    first figure. None with fewer than three perturbations.

    `axes`: name, end point (x, y) and place of the text. `polygons`: policy, colour, points of an SVG polygon.
    """
    names = sorted({record.perturbation for record in records if record.perturbation is not None})
    if len(names) < 3:
        return None
    results = group_results(records, ["policy", "perturbation"])
    policies = list(dict.fromkeys(record.policy for record in records))
    directions = [2 * math.pi * number / len(names) - math.pi / 2 for number in range(len(names))]
    axes = []
    for name, angle in zip(names, directions, strict=True):
        x, y = _at(angle, 1.0)
        text_x, text_y = _at(angle, 1.12)
        side = "middle" if abs(math.cos(angle)) < 0.3 else "start" if math.cos(angle) > 0 else "end"
        axes.append({"name": name, "x": x, "y": y, "text_x": text_x, "text_y": text_y, "side": side})
    polygons = []
    for number, policy in enumerate(policies):
        rates = [results[policy, name].rate if (policy, name) in results else None for name in names]
        if all(rate is None for rate in rates):
            continue
        corners = [_at(angle, rate or 0.0) for angle, rate in zip(directions, rates, strict=True)]
        path = " ".join(f"{x:g},{y:g}" for x, y in corners)
        polygons.append({"policy": policy, "colour": number % COLOURS, "points": path})
    rings = [" ".join("{:g},{:g}".format(*_at(angle, share)) for angle in directions) for share in (0.25, 0.5, 0.75, 1)]
    return {"axes": axes, "polygons": polygons, "rings": rings, "size": RADAR_SIZE}


def _at(angle: float, share: float) -> tuple[float, float]:
    middle = RADAR_SIZE / 2
    x, y = middle + share * RADAR_RADIUS * math.cos(angle), middle + share * RADAR_RADIUS * math.sin(angle)
    return round(x, 1), round(y, 1)


def failures(folder: Path, records: Sequence[TrialRecord], policies: Sequence[str]) -> list[dict[str, Any]]:
    """Failed trials with their first and last picture, grouped by task, of the named policies; at most a few of each
    task and FAILURES in all. `path` is that of the picture."""
    gallery: dict[tuple[str, str, int], dict[str, Any]] = {}
    shown = 0
    for record in records:
        if record.outcome != "failure" or record.policy not in policies or record.picture is None:
            continue
        key = (record.policy, record.suite, record.task_index)
        group = gallery.setdefault(
            key, {"policy": record.policy, "suite": record.suite, "index": record.task_index, "task": record.task,
                  "failed": 0, "pictures": []}
        )  # fmt: skip
        group["failed"] += 1
        path = folder / record.picture
        if len(group["pictures"]) < FAILURES_PER_TASK and shown < FAILURES and path.is_file():
            shown += 1
            group["pictures"].append({"path": path, "steps": record.steps, "state": record.init_state_index})
    return [group for group in gallery.values() if group["pictures"]]


def sheets(folder: Path, records: Sequence[TrialRecord], policies: Sequence[str]) -> list[dict[str, Any]]:
    """Sheets of filmed trials, grouped by task, of the named policies; at most a few of each task and SHEETS in all.
    `pictures` has the record and the `path` of each."""
    groups: dict[tuple[str, str, int], dict[str, Any]] = {}
    shown = 0
    for record in records:
        if record.policy not in policies or shown == SHEETS:
            continue
        # An evaluation by several machines has its pictures in the folders of its parts, beside the videos.
        place = folder if record.video is None else (folder / record.video).parent.parent
        path = place / PICTURES / f"{trial_name(record.key)}.png"
        key = (record.policy, record.suite, record.task_index)
        if len(groups.get(key, {}).get("pictures", ())) == SHEETS_PER_TASK or not path.is_file():
            continue
        group = groups.setdefault(
            key, {"policy": record.policy, "suite": record.suite, "index": record.task_index, "task": record.task,
                  "pictures": []}
        )  # fmt: skip
        shown += 1
        group["pictures"].append({"path": path, "record": record})
    return list(groups.values())


def tasks_shown(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The tasks to list, or only how many there are, by perturbation if they have one."""
    tasks = summary["tasks"]
    if len(tasks) <= LISTED_TASKS:
        return {"listed": tasks, "count": len(tasks), "by_perturbation": {}}
    names = [task["perturbation"] for task in tasks if task.get("perturbation")]
    return {
        "listed": [],
        "count": len(tasks),
        "by_perturbation": {name: names.count(name) for name in sorted(set(names))},
    }
