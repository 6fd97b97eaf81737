"""Small evaluation folders, with the files that an evaluation writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pokevla.evaluation.trial_records import Outcome, TrialRecord, rewrite_records, summarise

SETTINGS = {
    "environment": "libero", "suite": "libero_goal", "tasks": [0, 1], "init_states": [0, 50], "target_shift_m": None,
    "max_steps": 300, "settle_steps": 10, "seed": 7, "environment_seed": 0, "image_size": 256,
    "fast_rendering": False, "actions_per_query": 8, "queries_per_s": 2.5, "workers": 2, "gl": "osmesa",
    "mujoco": "3.3.2", "robosuite": "1.4.0", "torch": "2.14.1",
}  # fmt: skip
LETTERS: dict[str, Outcome] = {"+": "success", "-": "failure", "x": "crashed"}


def records(
    policy: str, outcomes: str, *, suite: str = "libero_goal", task: int = 0, perturbation: str | None = None,
    level: int | None = None,
) -> list[TrialRecord]:  # fmt: skip
    """One trial for each letter of `outcomes`: + success, - failure, x crashed, a space for a trial that is missing."""
    return [
        TrialRecord(
            policy=policy, suite=suite, task_index=task, task=f"task {task}", trial=state, init_state_index=state,
            target_shift=None, outcome=LETTERS[letter], steps=100, queries=13, seconds=2.0, perturbation=perturbation,
            level=level,
        )
        for state, letter in enumerate(outcomes)
        if letter != " "
    ]  # fmt: skip


def write_evaluation(folder: Path, trials: Sequence[TrialRecord], **settings: Any) -> Path:
    """`episodes.jsonl` and `summary.json`; returns the folder."""
    folder.mkdir(parents=True)
    kinds = {record.policy: "model" for record in trials}
    summary = {
        "policies": summarise(trials), "tasks": [], "settings": {**SETTINGS, "policies": kinds, **settings},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    rewrite_records(folder / "episodes.jsonl", trials)
    return folder
