"""Evaluations in a report: their figures, and videos and images with captions that say what they show."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monitoring.report.inputs import VIDEOS_PER_POLICY
from monitoring.report.trial_results import breakdowns, failures, radar, sheets, tasks_shown
from pokevla.evaluation.choosing.validation import read_choice
from pokevla.evaluation.drawing.videos import trial_files, trial_name
from pokevla.evaluation.folder import EPISODES
from pokevla.evaluation.table import simulator, steps_of, suites_of
from pokevla.evaluation.trial_records import TrialRecord, read_records

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4"}
POLICY_NOTES = {
    "model": "weights of a training run",
    "untrained": "same model, random weights",
    "blanked": "the same weights with all images zeroed",
    "replay": "one expert episode replayed",
}
OUTCOMES = {"success": "solved", "failure": "not solved", "crashed": "the simulator crashed"}


def data_uri(path: Path) -> str:
    """A file as a `data:` URI."""
    return f"data:{TYPES[path.suffix]};base64," + base64.b64encode(path.read_bytes()).decode()


def trials_section(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Closed-loop trials: a row for each policy, a few videos of each, and masks of those that predict them."""
    kinds = summary["settings"]["policies"]
    records = read_records(folder / EPISODES)
    instructions = {(task.get("suite"), task["index"]): task["instruction"] for task in summary["tasks"]}
    policies = []
    for name, row in summary["policies"].items():
        rate = row["successes"] / row["trials"] if row["trials"] else 0.0
        policies.append({"name": name, "note": POLICY_NOTES.get(kinds.get(name, ""), ""), "rate": rate, **row})
    suites = suites_of(summary["settings"])
    by_name = {trial_name(record.key): record for record in records}
    models = [name for name, kind in kinds.items() if kind == "model"]
    return {
        "title": folder.name,
        "policies": policies,
        "videos": [
            medium
            for name in summary["policies"]
            for medium in _media(folder / "videos", name, suites, by_name, instructions)[:VIDEOS_PER_POLICY]
        ],
        "sheets": _sheets(folder, records, models, instructions),
        "has_masks": any(row["mask_iou"] is not None for row in summary["policies"].values()),
        "settings": summary["settings"],
        "simulator": simulator(summary["settings"]),
        "suites": suites,
        "steps": steps_of(summary["settings"]),
        "tasks": tasks_shown(summary),
        "unavailable": len(summary["settings"].get("unavailable_tasks", ())),
        "choice": read_choice(folder.with_name(f"{folder.name}-checkpoints")),
        "breakdowns": breakdowns(records),
        "radar": radar(records),
        "failures": _failures(folder, records, models, instructions),
    }


def _failures(
    folder: Path,
    records: Sequence[TrialRecord],
    policies: Sequence[str],
    instructions: Mapping[tuple[str | None, int], str],
) -> list[dict[str, Any]]:
    """The gallery of failures, with its pictures inside."""
    groups = failures(folder, records, policies)
    for group in groups:
        group["instruction"] = instructions.get((group["suite"], group["index"]), group["task"])
        for picture in group["pictures"]:
            picture["uri"] = data_uri(picture["path"])
    return groups


def _sheets(
    folder: Path,
    records: Sequence[TrialRecord],
    policies: Sequence[str],
    instructions: Mapping[tuple[str | None, int], str],
) -> list[dict[str, Any]]:
    """The sheets of trials, with their pictures inside and captions."""
    groups = sheets(folder, records, policies)
    for group in groups:
        group["instruction"] = instructions.get((group["suite"], group["index"]), group["task"])
        group["pictures"] = [
            {"uri": data_uri(each["path"]), "policy": group["policy"], **_caption("", each["record"], instructions)}
            for each in group["pictures"]
        ]
    return groups


def _media(
    folder: Path,
    policy: str,
    suites: Sequence[str],
    records: Mapping[str, TrialRecord],
    instructions: Mapping[tuple[str | None, int], str],
) -> list[dict[str, str]]:
    """The files of one folder that belong to trials of a policy, with captions."""
    return [
        {"policy": policy, "uri": data_uri(path), **_caption(trial, records.get(path.stem), instructions)}
        for trial, path in trial_files(folder, policy, suites).items()
    ]


def _caption(
    trial: str, record: TrialRecord | None, instructions: Mapping[tuple[str | None, int], str]
) -> dict[str, str]:
    """What a trial was and what came out; only its name if it has no record."""
    if record is None:
        return {"trial": trial}
    steps = f" after {record.steps} steps" if record.outcome != "crashed" else ""
    iou = "" if record.mask_iou is None else f", mask IoU {record.mask_iou:.2f}"
    return {
        "outcome": record.outcome,
        "result": f"{OUTCOMES[record.outcome]}{steps}{iou}",
        "instruction": instructions.get((record.suite, record.task_index), record.task),
        "trial": f"{record.suite} task {record.task_index}, initial state {record.init_state_index}",
    }


def grounding_section(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Points of models before and after training: a row for each, and an image of its points."""
    last = list(summary)[-1]  # models without points are left out, except the last one
    shown = [name for name, row in summary.items() if row["distinct_points"] or name == last]
    paths = [path for name in shown if (path := folder / "pictures" / f"{name}.png").is_file()]
    pictures = [{"title": path.stem, "uri": data_uri(path)} for path in paths]
    categories = sorted({name for row in summary.values() for name in row["by_category"]})
    return {"title": folder.name, "models": summary, "categories": categories, "pictures": pictures}
