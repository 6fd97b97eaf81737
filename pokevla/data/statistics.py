"""Normalisation of actions and proprio: OpenVLA-OFT's q01-q99 rule and its gripper convention.

Normalised: six action dimensions and all of proprio lie in [-1, 1]; the gripper is 1 open, 0 closed.
Raw LIBERO: the gripper is -1 open, +1 closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pokevla.errors import DataError

ACTION_DIM = 7
PROPRIO_DIM = 8
GRIPPER = 6
EPSILON = 1e-8
"""OFT's guard against a zero range (prismatic/vla/datasets, normalize_action_and_proprio)."""


@dataclass(frozen=True)
class Moments:
    """Per dimension: quantiles 0.01 and 0.99, extremes, mean and standard deviation. All (D,) float64."""

    q01: np.ndarray
    q99: np.ndarray
    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Self:
        """Moments over the rows of an array (T,D)."""
        rows = rows.astype(np.float64)
        low, high = np.quantile(rows, [0.01, 0.99], axis=0)
        return cls(low, high, rows.min(axis=0), rows.max(axis=0), rows.mean(axis=0), rows.std(axis=0))

    def to_dict(self) -> dict[str, list[float]]:
        """Plain lists by name."""
        return {name: getattr(self, name).tolist() for name in _MOMENT_NAMES}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; KeyError for a missing name."""
        return cls(**{name: np.asarray(values[name], dtype=np.float64) for name in _MOMENT_NAMES})


_MOMENT_NAMES = ("q01", "q99", "min", "max", "mean", "std")


@dataclass(frozen=True)
class Statistics:
    """Moments of actions (7) in OFT's gripper convention and of proprio (8), and which actions are scaled."""

    action: Moments
    proprio: Moments
    action_mask: np.ndarray
    """(7,) bool: True where the q01-q99 rule applies; False for the gripper."""
    num_frames: int
    num_episodes: int

    def normalise_actions(self, raw: np.ndarray) -> np.ndarray:
        """Raw LIBERO actions (..., 7) to the model's: float32, [-1, 1], gripper 1 open and 0 closed."""
        actions = open_is_one(raw)
        scaled = _to_unit(actions, self.action.q01, self.action.q99)
        scaled = np.where(self.action.min == self.action.max, 0.0, scaled)  # OFT: constant dimensions become 0
        return np.where(self.action_mask, scaled, actions).astype(np.float32)

    def denormalise_actions(self, normalised: np.ndarray) -> np.ndarray:
        """The model's actions (..., 7) back to raw LIBERO ones, float32; the gripper becomes exactly -1 or +1."""
        normalised = np.asarray(normalised, dtype=np.float64)
        span = self.action.q99 - self.action.q01 + EPSILON
        raw = np.where(self.action_mask, 0.5 * (normalised + 1.0) * span + self.action.q01, normalised)
        # A constant dimension was normalised to 0, the middle of its range: both bounds are its only value.
        raw[..., GRIPPER] = np.where(normalised[..., GRIPPER] > 0.5, -1.0, 1.0)
        return raw.astype(np.float32)

    def normalise_proprio(self, raw: np.ndarray) -> np.ndarray:
        """Raw proprio (..., 8) to float32 in [-1, 1]."""
        scaled = _to_unit(np.asarray(raw, dtype=np.float64), self.proprio.q01, self.proprio.q99)
        return np.where(self.proprio.min == self.proprio.max, 0.0, scaled).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """JSON form, as in dataset.json and an exported model's statistics.json."""
        return {
            "action": {**self.action.to_dict(), "mask": self.action_mask.tolist()},
            "proprio": self.proprio.to_dict(),
            "num_frames": self.num_frames,
            "num_episodes": self.num_episodes,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`. DataError naming what is missing."""
        try:
            return cls(
                action=Moments.from_dict(values["action"]),
                proprio=Moments.from_dict(values["proprio"]),
                action_mask=np.asarray(values["action"]["mask"], dtype=bool),
                num_frames=int(values["num_frames"]),
                num_episodes=int(values["num_episodes"]),
            )
        except KeyError as error:
            raise DataError(f"normalisation statistics lack {error}.", "Convert the dataset again.") from error


def open_is_one(raw: np.ndarray) -> np.ndarray:
    """Actions (..., 7) float64 with the gripper as OFT trains it: clip(-1 open, +1 closed) to [0, 1], then 1 - g."""
    actions = np.array(raw, dtype=np.float64)
    actions[..., GRIPPER] = 1.0 - np.clip(actions[..., GRIPPER], 0.0, 1.0)
    return actions


def _to_unit(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """OFT's scaling of [low, high] to [-1, 1], clipped."""
    return np.clip(2.0 * (values - low) / (high - low + EPSILON) - 1.0, -1.0, 1.0)


def compute_statistics(actions: Sequence[np.ndarray], proprio: Sequence[np.ndarray]) -> Statistics:
    """Statistics over episodes: raw LIBERO actions (T,7) and proprio (T,8) each. DataError without any frame."""
    if not actions or sum(len(episode) for episode in actions) == 0:
        raise DataError("there is no frame to compute statistics from.", "Check that the split `train` has episodes.")
    all_actions, all_proprio = np.concatenate(actions), np.concatenate(proprio)
    mask = np.ones(ACTION_DIM, dtype=bool)
    mask[GRIPPER] = False
    return Statistics(
        Moments.of(open_is_one(all_actions)), Moments.of(all_proprio), mask, len(all_actions), len(actions)
    )
