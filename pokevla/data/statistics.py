"""Normalisation of actions and proprio: OpenVLA-OFT's q01-q99 rule and its gripper convention.

Normalised: the action columns in the embodiment's mask and all of proprio are in [-1, 1]; grippers are 1 open, 0
closed. Raw: the robot's own units, and its own commands for open and closed.

Shapes: A action width, P proprio width of the embodiment, T frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pokevla.embodiment.description import Embodiment, Gripper
from pokevla.embodiment.finite import bad_number, refuse_bad_rows
from pokevla.errors import DataError

EPSILON = 1e-8
"""OFT's protection against a zero range (prismatic/vla/datasets, normalize_action_and_proprio)."""


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
        """Inverse of `to_dict`; KeyError for a missing name, ValueError for values that are not lists of one length."""
        moments = cls(**{name: np.asarray(values[name], dtype=np.float64) for name in _MOMENT_NAMES})
        if len({getattr(moments, name).shape for name in _MOMENT_NAMES}) != 1 or moments.q01.ndim != 1:
            raise ValueError("the moments should be lists of one length")
        return moments

    def bad_value(self) -> str | None:
        """The first name with a value that is not finite or absurd, and what is wrong with it; None if all are good."""
        for name in _MOMENT_NAMES:
            bad = bad_number(getattr(self, name)[None])
            if bad is not None:
                return f"{name}: {bad[1]}"
        return None


_MOMENT_NAMES = ("q01", "q99", "min", "max", "mean", "std")


@dataclass(frozen=True)
class Statistics:
    """Moments of actions (A) in OFT's gripper convention and of proprio (P), and the mask of scaled actions."""

    action: Moments
    proprio: Moments
    action_mask: np.ndarray
    """(A,) bool: True where the q01-q99 rule applies; False for grippers."""
    grippers: tuple[Gripper, ...]
    """Not part of the JSON form: the embodiment's description is stored beside it."""
    num_frames: int
    num_episodes: int

    def normalise_actions(self, raw: np.ndarray) -> np.ndarray:
        """Convert raw actions (..., A) to the model's: float32, [-1, 1], grippers 1 open and 0 closed."""
        actions = open_is_one(raw, self.grippers)
        scaled = _to_unit(actions, self.action.q01, self.action.q99)
        scaled = np.where(self.action.min == self.action.max, 0.0, scaled)  # OFT: constant dimensions become 0
        return np.where(self.action_mask, scaled, actions).astype(np.float32)

    def denormalise_actions(self, normalised: np.ndarray) -> np.ndarray:
        """Convert the model's actions (..., A) to raw ones (float32). A gripper gets its exact command."""
        normalised = np.asarray(normalised, dtype=np.float64)
        span = self.action.q99 - self.action.q01 + EPSILON
        raw = np.where(self.action_mask, 0.5 * (normalised + 1.0) * span + self.action.q01, normalised)
        # A constant dimension was normalised to 0, the middle of its range: both bounds equal its only value.
        for gripper in self.grippers:
            is_open = normalised[..., gripper.column] > 0.5
            raw[..., gripper.column] = np.where(is_open, gripper.open, gripper.closed)
        return raw.astype(np.float32)

    def normalise_proprio(self, raw: np.ndarray) -> np.ndarray:
        """Normalise raw proprio (..., P) to float32 in [-1, 1]."""
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
    def from_dict(cls, values: dict[str, Any], embodiment: Embodiment) -> Self:
        """Inverse of `to_dict`. `embodiment` is the one whose data the statistics were computed from.

        Raises:
            DataError: a value is missing, not finite or absurd, or the widths differ from the embodiment's.
        """
        try:
            statistics = cls(
                action=Moments.from_dict(values["action"]),
                proprio=Moments.from_dict(values["proprio"]),
                action_mask=np.asarray(values["action"]["mask"], dtype=bool),
                grippers=embodiment.grippers,
                num_frames=int(values["num_frames"]),
                num_episodes=int(values["num_episodes"]),
            )
            if statistics.action_mask.shape != statistics.action.q01.shape:
                raise ValueError("the mask and the moments of the actions differ in length")
        except KeyError as error:
            raise DataError(f"normalisation statistics lack {error}.", "Convert the dataset again.") from error
        except (TypeError, ValueError) as error:
            raise DataError(f"normalisation statistics are damaged: {error}.", "Convert the dataset again.") from error
        widths = (len(statistics.action_mask), len(statistics.proprio.q01))
        if widths != (embodiment.action_width, embodiment.proprio_width):
            raise DataError(
                f"normalisation statistics are of {widths[0]} action and {widths[1]} proprio numbers; the embodiment "
                f"{embodiment.name} has {embodiment.action_width} and {embodiment.proprio_width}.",
                "Convert the dataset again.",
            )
        for what, moments in (("action", statistics.action), ("proprio", statistics.proprio)):
            bad = moments.bad_value()
            if bad is not None:
                raise DataError(f"normalisation statistics of {what}, {bad}.", "Convert the dataset again.")
        return statistics


def open_is_one(raw: np.ndarray, grippers: Sequence[Gripper]) -> np.ndarray:
    """Actions (..., A) float64, grippers as OFT trains them: 1 from `open` to the middle, falling to 0 at `closed`.

    OFT has -1 open and +1 closed, clips to [0, 1] and takes 1 - g (prismatic/vla/datasets). For these commands this
    formula gives bit-identical values.
    """
    actions = np.array(raw, dtype=np.float64)
    for gripper in grippers:
        closedness = (actions[..., gripper.column] - gripper.middle) / (gripper.closed - gripper.middle)
        actions[..., gripper.column] = 1.0 - np.clip(closedness, 0.0, 1.0)
    return actions


def _to_unit(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """OFT's scaling of [low, high] to [-1, 1], clipped."""
    return np.clip(2.0 * (values - low) / (high - low + EPSILON) - 1.0, -1.0, 1.0)


def compute_statistics(
    actions: Sequence[np.ndarray], proprio: Sequence[np.ndarray], embodiment: Embodiment
) -> Statistics:
    """Statistics over episodes, each with raw actions (T,A) and proprio (T,P).

    Raises DataError without any frame, and for a number that is not finite or absurd.
    """
    if sum(len(episode) for episode in actions) == 0:
        raise DataError("there is no frame to compute statistics from.", "Check that the split `train` has episodes.")
    for number, episode in enumerate(zip(actions, proprio, strict=True)):
        for what, rows in zip(("actions", "proprio"), episode, strict=True):
            refuse_bad_rows(rows, f"{what} of episode {number} of those that statistics are computed from")
    all_actions, all_proprio = np.concatenate(actions), np.concatenate(proprio)
    return Statistics(
        action=Moments.of(open_is_one(all_actions, embodiment.grippers)),
        proprio=Moments.of(all_proprio),
        action_mask=np.array(embodiment.action_mask, dtype=bool),
        grippers=embodiment.grippers,
        num_frames=len(all_actions),
        num_episodes=len(actions),
    )
