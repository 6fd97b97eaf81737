"""Reads `dataset_statistics.json` of OpenVLA-OFT and VLA-Adapter, and scales as their evaluations do.

One file has the statistics of several datasets by name (`libero_spatial_no_noops`). Differences from our
`statistics.json`: without `mask` every column is scaled, and the counts have other names.

Shapes: A action width, P proprio width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.statistics import EPSILON
from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.finite import bad_number
from pokevla.errors import DataError, UsageError
from pokevla.files.texts import read_json_object

FILE = "dataset_statistics.json"
NO_NOOPS = "_no_noops"
"""End of the names of the datasets that OpenVLA-OFT regenerated without idle steps."""


@dataclass(frozen=True)
class Bounds:
    """Quantiles 0.01 and 0.99 of each column (D,) float64, and which columns are scaled by them (D,) bool."""

    low: np.ndarray
    high: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class PublishedStatistics:
    """Statistics of one dataset."""

    name: str
    action: Bounds
    proprio: Bounds

    def denormalise_actions(self, normalised: np.ndarray) -> np.ndarray:
        """The model's actions (..., A) float32 to the robot's, float64.

        Masked columns: 0.5 (a + 1) (q99 - q01 + 1e-8) + q01, others unchanged (modeling_prismatic.py,
        _unnormalize_actions). Last column, the gripper: 2x - 1, sign, * -1, so that -1 opens and 1 closes; exactly 0.5
        gives 0, which does neither (experiments/robot/robot_utils.py).
        """
        bounds = self.action
        spread = bounds.high - bounds.low + EPSILON
        raw = np.where(bounds.mask, 0.5 * (normalised + 1) * spread + bounds.low, normalised.astype(np.float64))
        raw[..., -1] = -np.sign(2 * raw[..., -1] - 1)
        return raw

    def normalise_proprio(self, raw: np.ndarray) -> np.ndarray:
        """The robot's state (..., P) to the model's, float32, clipped to [-1, 1] (openvla_utils.py, normalize_proprio).

        A constant column becomes -1, not 0 as in our own statistics.
        """
        bounds = self.proprio
        raw = np.asarray(raw, dtype=np.float64)
        scaled = 2 * (raw - bounds.low) / (bounds.high - bounds.low + EPSILON) - 1
        return np.clip(np.where(bounds.mask, scaled, raw), -1.0, 1.0).astype(np.float32)


def read_published_statistics(path: Path, embodiment: Embodiment) -> dict[str, PublishedStatistics]:
    """The statistics of a file that fit the robot, by name of their dataset.

    Raises:
        DataError: the file is missing or damaged, or has none of this embodiment. Then it names those that it has.
    """
    content = read_json_object(path, remedy="Copy it from the checkpoint again.")
    if not content:
        raise DataError(f"{path} has no statistics.", "Copy it from the checkpoint again.")
    found = {name: _statistics(name, values, path) for name, values in content.items()}
    wanted = (embodiment.action_width, embodiment.proprio_width)
    fitting = {name: one for name, one in found.items() if _widths(one) == wanted}
    if not fitting:
        listed = ", ".join(f"{name} ({_widths(one)[0]} and {_widths(one)[1]})" for name, one in found.items())
        raise DataError(
            f"{path} has no statistics of the embodiment {embodiment.name}, whose actions and proprio have {wanted[0]} "
            f"and {wanted[1]} numbers. It has {listed}.",
            "Use a checkpoint of this robot.",
        )
    return fitting


def _widths(statistics: PublishedStatistics) -> tuple[int, int]:
    return len(statistics.action.low), len(statistics.proprio.low)


def _statistics(name: str, values: Any, path: Path) -> PublishedStatistics:
    try:
        return PublishedStatistics(name, _bounds(values["action"]), _bounds(values["proprio"]))
    except (KeyError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: {name}: {what}.", "Copy it from the checkpoint again.") from error


def _bounds(values: Mapping[str, Any]) -> Bounds:
    """Raises KeyError or ValueError for values that are not those of quantiles."""
    low, high = (np.asarray(values[name], dtype=np.float64) for name in ("q01", "q99"))
    mask = np.asarray(values.get("mask", np.ones(low.shape)), dtype=bool)
    if low.ndim != 1 or not low.shape == high.shape == mask.shape:
        raise ValueError(f"q01, q99 and mask have the shapes {low.shape}, {high.shape} and {mask.shape}")
    bad = bad_number(np.stack([low, high]))
    if bad is not None:
        raise ValueError(f"{('q01', 'q99')[bad[0]]}: {bad[1]}")
    return Bounds(low, high, mask)


def choose_statistics(statistics: Mapping[str, PublishedStatistics], name: str) -> PublishedStatistics:
    """Those of the dataset `name`, or of `name` without idle steps (run_libero_eval.py, check_unnorm_key).

    Raises:
        UsageError: there are none; names those that are there.
    """
    for candidate in (name, name + NO_NOOPS):
        if candidate in statistics:
            return statistics[candidate]
    raise UsageError(
        f"This checkpoint has no statistics of {name} or {name}{NO_NOOPS}; it has those of {', '.join(statistics)}.",
        "Evaluate it on the suite that it was trained on.",
    )
