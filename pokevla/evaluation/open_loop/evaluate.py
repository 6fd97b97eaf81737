"""The open-loop evaluation of a policy: predicted against recorded chunks, beside two baselines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.reader import ShardReader
from pokevla.embodiment.mixing import misfits
from pokevla.errors import DataError, UsageError
from pokevla.evaluation.open_loop.baselines import NearestNeighbour, constant_actions
from pokevla.evaluation.open_loop.errors import (
    absolute_errors,
    action_columns,
    gripper_agreement,
    paired_difference,
    summarise_errors,
)
from pokevla.evaluation.open_loop.frames import Frames, select_frames
from pokevla.evaluation.open_loop.results import FOLDER, Predictions, write_results
from pokevla.evaluation.running.answers import ask
from pokevla.evaluation.running.messages import Query
from pokevla.files.ownership import refuse_overlap
from pokevla.policy.acting import ActingPolicy
from pokevla.policy.policy import Policy
from pokevla.policy.published import PublishedPolicy
from pokevla.recipe.checking.datasets import ALL_SPLITS, read_dataset_info
from pokevla.recipe.kinds import training_of
from pokevla.runs.directory import holds_recipe, read_run_recipe

POLICY, CONSTANT, NEAREST = "policy", "constant action", "nearest neighbour"
ProgressCallback = Callable[[int, int], None]
"""(frames done, all): those that the baselines read, then those that are predicted"""


@dataclass(frozen=True)
class OpenLoop:
    """What is evaluated on what. The values are defaults of ours."""

    run: Path
    dataset: Path
    split: str = "val"
    reference: Path | None = None
    """Dataset of the baselines; None: the same."""
    reference_split: str = "train"
    frames: int = 500
    reference_frames: int = 5000
    horizon: int | None = None
    """Actions of each chunk that count; None: all that the policy predicts."""
    statistics: str | None = None
    """Of an imported policy: the dataset whose normalisation is used."""
    episodes_plotted: int = 4
    batch_size: int = 8


def evaluate_open_loop(
    settings: OpenLoop, out: Path, *, overwrite: bool = False, on_progress: ProgressCallback | None = None
) -> dict[str, Any]:
    """Compare predicted with recorded actions on held-out frames; returns `summary.json` of the folder `out`.

    Each frame is shown once, as it was recorded, so an error never leads to the next: a low error is necessary for a
    policy that works, and not sufficient.

    Args:
        settings: what is evaluated on what.
        out: folder to write, complete or not at all.
        overwrite: replace an earlier open-loop evaluation.
        on_progress: called after each frame or batch.

    Raises:
        UsageError: the policy is of another robot, or `out` lies in the dataset or run, or the horizon is too long.
        DataError: a dataset has no such frames, or is damaged; or `out` exists.
        CheckpointError: `run` is not a policy.
        PolicyError: the policy returns something that is not an action.
    """
    told = on_progress or (lambda done, total: None)
    reference_root = settings.reference or settings.dataset
    refuse_overlap(out, [settings.dataset, reference_root, settings.run])
    FOLDER.refuse(out, overwrite=overwrite)
    for root in {settings.dataset, reference_root}:
        _refuse_questions(root)
    policy = _load(settings)
    horizon = _horizon(settings, policy)
    dataset = _open(settings.dataset, policy)
    frames = select_frames(dataset, settings.split, horizon, settings.frames)
    same = reference_root == settings.dataset
    reference = _reference(dataset if same else _open(reference_root, policy), settings, horizon)
    chunks = _predict(policy, frames, reference, horizon, settings.batch_size, told)
    summary = _summary(settings, policy, frames, reference, chunks)
    write_results(out, summary, Predictions(frames, chunks, settings.episodes_plotted), overwrite=overwrite)
    return summary


def _refuse_questions(root: Path) -> None:
    if read_dataset_info(root).kind != "robot":
        raise DataError(f"{root} is a dataset of questions: it has no actions.", "Name a robot dataset.")


def _load(settings: OpenLoop) -> Policy | PublishedPolicy:
    policy = Policy.from_pretrained(settings.run)
    if settings.statistics is None:
        return policy
    if not isinstance(policy, PublishedPolicy):
        raise UsageError(
            f"{settings.run} has the statistics of its own training only.", "Leave out --statistics for a run of ours."
        )
    return policy.for_suite(settings.statistics)


def _horizon(settings: OpenLoop, policy: Policy | PublishedPolicy) -> int:
    horizon = settings.horizon or policy.chunk_length
    if horizon > policy.chunk_length:
        raise UsageError(
            f"--horizon {horizon}: the policy predicts {policy.chunk_length} actions.",
            f"Use --horizon {policy.chunk_length} or less.",
        )
    return horizon


def _open(root: Path, policy: ActingPolicy) -> Dataset:
    dataset = open_dataset(root)
    clauses = misfits(policy.embodiment, dataset.embodiment) if dataset.embodiment is not None else []
    if clauses:
        raise UsageError(
            f"The policy was trained for another robot than that of {root}: {'; '.join(clauses)}.",
            "Evaluate it on recordings of its own robot.",
        )
    return dataset


def _reference(dataset: Dataset, settings: OpenLoop, horizon: int) -> Frames:
    """The frames of the baselines. No episode that is evaluated may be among them."""
    split = settings.reference_split
    own = dataset.root.resolve() == settings.dataset.resolve()
    if own and (split == settings.split or ALL_SPLITS in (split, settings.split)):
        raise UsageError(
            f"The baselines would know the answers: split {split} of {dataset.root} holds frames that are evaluated.",
            "Evaluate another split (--split val), or name other recordings with --reference DATASET.",
        )
    return select_frames(dataset, split, horizon, settings.reference_frames)


def _predict(
    policy: Policy | PublishedPolicy, frames: Frames, reference: Frames, horizon: int, batch_size: int,
    told: ProgressCallback,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Chunks (N, horizon, A) by predictor."""
    total = len(reference) + len(frames)
    nearest = NearestNeighbour(reference, lambda done: told(done, total))
    constant = np.broadcast_to(constant_actions(reference), frames.actions.shape)
    chunks, neighbours = [], []
    reader = ShardReader(frames.dataset)
    try:
        for start in range(0, len(frames), batch_size):
            group = range(start, min(start + batch_size, len(frames)))
            queries = [
                Query(
                    int(frames.numbers[index]), frames.instructions[index], frames.proprio[index],
                    frames.images(reader, index) if policy.needs_images else None, None,
                )
                for index in group
            ]  # fmt: skip
            chunks.append(ask(POLICY, policy, queries, batch_size)[:, :horizon])
            neighbours += [nearest.chunk(frames, reader, index) for index in group]
            told(len(reference) + group.stop, total)
    finally:
        reader.close()
    return {
        POLICY: np.concatenate(chunks).astype(np.float64),
        CONSTANT: np.asarray(constant),
        NEAREST: np.stack(neighbours),
    }


def _summary(
    settings: OpenLoop, policy: Policy | PublishedPolicy, frames: Frames, reference: Frames,
    chunks: dict[str, np.ndarray],
) -> dict[str, Any]:  # fmt: skip
    columns = action_columns(policy.embodiment)
    errors = {name: absolute_errors(chunk, frames.actions, columns) for name, chunk in chunks.items()}
    predictors = {
        name: {
            **summarise_errors(error, errors[CONSTANT], frames.episodes, columns),
            "gripper_agreement": gripper_agreement(chunks[name], frames.actions, policy.embodiment),
        }
        for name, error in errors.items()
    }
    gains = {}
    for name in (CONSTANT, NEAREST):
        gain, low, high = paired_difference(errors[POLICY], errors[name], errors[CONSTANT], frames.episodes)
        gains[name] = {"gain": gain, "low": low, "high": high}
    beats = all(row["low"] > 0 for row in gains.values())
    return {
        "kind": FOLDER.kind,
        "run": str(settings.run),
        "dataset": str(settings.dataset),
        "fingerprint": frames.dataset.fingerprint,
        "split": settings.split,
        "reference": str(reference.dataset.root),
        "reference_split": settings.reference_split,
        "reference_frames": len(reference),
        "frames": len(frames),
        "episodes": len(np.unique(frames.episodes)),
        "horizon": int(frames.actions.shape[1]),
        "control_rate_hz": policy.embodiment.control_rate_hz,
        "columns": [{"name": column.name, "unit": column.unit} for column in columns],
        "predictors": predictors,
        "gains": gains,
        "beats_baselines": beats,
        "labels": _labels(settings, frames),
    }


def _labels(settings: OpenLoop, frames: Frames) -> list[str]:
    """What a reader has to know first."""
    labels = []
    recipe = training_of(read_run_recipe(settings.run)) if holds_recipe(settings.run) else None
    if recipe is not None:
        seen = any(
            read_dataset_info(path).fingerprint == frames.dataset.fingerprint
            for path in recipe.dataset_paths
            if path.is_dir()
        )
        if seen and recipe.data.train_split in (ALL_SPLITS, settings.split):
            labels.append("The policy was trained on these frames: the errors say nothing about new ones.")
    if len(np.unique(frames.episodes)) < 5:
        labels.append("Fewer than five episodes: the intervals are too narrow.")
    return labels
