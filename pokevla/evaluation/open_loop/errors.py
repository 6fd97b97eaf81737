"""Errors of predicted chunks by column and horizon, in physical units, with intervals over episodes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from pokevla.embodiment.description import Embodiment

RESAMPLES = 2000
SEED = 0
_SCALED_UNIT = re.compile(r"([0-9.eE+-]+) (\S+)")


@dataclass(frozen=True)
class Column:
    """One action column: its name, its unit, and what one raw unit is in it."""

    name: str
    unit: str
    scale: float


def action_columns(embodiment: Embodiment) -> list[Column]:
    """The columns of an action in physical units: a field of unit `0.05 m` is in metres, 0.05 to one of its own.

    A field of several columns gives `position[0]`, `position[1]`, ...
    """
    columns = []
    for field in embodiment.action:
        match = _SCALED_UNIT.fullmatch(field.unit)
        scale, unit = (float(match[1]), match[2]) if match else (1.0, field.unit)
        names = [field.name] if field.size == 1 else [f"{field.name}[{number}]" for number in range(field.size)]
        columns += [Column(name, unit, scale) for name in names]
    return columns


def absolute_errors(predicted: np.ndarray, true: np.ndarray, columns: list[Column]) -> np.ndarray:
    """|predicted - true| of chunks (N, K, A), in the units of `columns`."""
    return np.abs(predicted - true) * np.array([column.scale for column in columns])


def relative_errors(errors: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """(N,) mean error of each frame, each column divided by the mean error of the constant action in that column.

    1 is as good as the constant action. Columns in which the constant action is never wrong are left out.

    Args:
        errors: (N, K, A) of a predictor.
        constant: (N, K, A) of the constant action on the same frames.
    """
    typical = constant.mean(axis=(0, 1))
    moves = typical > 0
    if not moves.any():
        return np.zeros(len(errors))
    return (errors.mean(axis=1)[:, moves] / typical[moves]).mean(axis=1)


def gripper_agreement(predicted: np.ndarray, true: np.ndarray, embodiment: Embodiment) -> float | None:
    """Share of gripper commands on the same side of the middle between open and closed; None without grippers."""
    if not embodiment.grippers:
        return None
    same = [
        (predicted[..., gripper.column] > gripper.middle) == (true[..., gripper.column] > gripper.middle)
        for gripper in embodiment.grippers
    ]
    return float(np.mean(same))


def episode_interval(values: np.ndarray, episodes: np.ndarray) -> tuple[float, float, float]:
    """Mean of per-frame `values` (N,) and its 95 % bootstrap interval. Whole episodes are drawn, because the frames of
    one episode resemble each other; with a single episode the interval is its mean alone."""
    _, places = np.unique(episodes, return_inverse=True)
    sums, counts = np.bincount(places, weights=values), np.bincount(places)
    rng = np.random.default_rng(SEED)
    drawn = rng.integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def summarise_errors(
    errors: np.ndarray, constant: np.ndarray, episodes: np.ndarray, columns: list[Column]
) -> dict[str, Any]:
    """Figures of one predictor: relative error with its interval, and errors by column, by horizon and by both."""
    mean, low, high = episode_interval(relative_errors(errors, constant), episodes)
    table = errors.mean(axis=0)  # (K, A)
    return {
        "relative_error": mean,
        "low": low,
        "high": high,
        "by_column": {column.name: float(value) for column, value in zip(columns, table.mean(axis=0), strict=True)},
        "by_horizon": [
            float(value) for value in relative_by_horizon(errors, constant)
        ],
        "by_horizon_and_column": table.tolist(),
    }  # fmt: skip


def relative_by_horizon(errors: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """(K,) as `relative_errors`, by the number of the action in its chunk."""
    typical = constant.mean(axis=(0, 1))
    moves = typical > 0
    if not moves.any():
        return np.zeros(errors.shape[1])
    return (errors.mean(axis=0)[:, moves] / typical[moves]).mean(axis=1)


def paired_difference(
    ours: np.ndarray, other: np.ndarray, constant: np.ndarray, episodes: np.ndarray
) -> tuple[float, float, float]:
    """Relative error of a baseline minus ours on the same frames, with its interval. Above 0: the policy is better."""
    return episode_interval(relative_errors(other, constant) - relative_errors(ours, constant), episodes)
