"""Whether the observations of a demonstration file were made before or after the action of their row.

Published LIBERO files observe after the action, so the arm of row t is that of `states[t + 1]`. OpenVLA-OFT's
regenerate_libero_dataset.py and our recorder observe before it: the arm of row t is that of `states[t]`. The numbers
tell the two apart; published and OpenVLA-OFT's files have no attribute that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pokevla.errors import DataError
from pokevla.files.foreign.hdf5 import REMEDY, Hdf5File

Alignment = Literal["before", "after"]
STATES, JOINTS = "states", "obs/joint_states"
NUM_JOINTS = 7
JOINT_COLUMNS = slice(1, 1 + NUM_JOINTS)
"""The arm in a row of `states` (time, qpos, qvel): the robot is the first body of every LIBERO model."""
MIN_MOTION_RAD = 1e-3
"""A row in which no joint moves further says nothing. Ours: the arm moves 0.006 to 0.058 rad in a row (measured)."""
MAX_DISTANCE_RAD = 0.05
"""Joints further from both states belong to neither. Ours: the limit of `pokevla data masks`."""
_CLEARLY = 0.5
"""A row counts if the nearer state is at most half as far away as the other."""
_MIN_ROWS, _MIN_SHARE = 3, 0.8
_ENOUGH_ROWS = 100
"""Rows after which no further episode is read."""
ATTRIBUTE = "pokevla_obs_alignment"
CHOOSE = "If you know it, pass --alignment before or --alignment after (docs/data.md)."


@dataclass(frozen=True)
class Evidence:
    """Rows whose joints are clearly those of the state before, or after, their action."""

    before: int = 0
    after: int = 0

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(self.before + other.before, self.after + other.after)

    @property
    def rows(self) -> int:
        return self.before + self.after

    @property
    def verdict(self) -> Alignment | None:
        """The alignment of at least 80 % of the rows; None for fewer than three rows or less agreement."""
        if self.rows < _MIN_ROWS or max(self.before, self.after) < _MIN_SHARE * self.rows:
            return None
        return "before" if self.before > self.after else "after"


def weigh(states: np.ndarray, joints: np.ndarray) -> Evidence:
    """Compare the stored joints with the states, row by row.

    Args:
        states: (T, S) flat simulator states, S at least 8.
        joints: (T, 7) rad.

    The first row is left out: OpenVLA-OFT stores the original first state there, but observes after ten idle steps.
    """
    arm = np.asarray(states, np.float64)[1:, JOINT_COLUMNS]
    seen = np.asarray(joints, np.float64)[1:]
    if len(arm) < 2:
        return Evidence()
    with np.errstate(invalid="ignore", over="ignore"):  # numbers that are not finite are nobody's joints
        moves = np.abs(arm[1:] - arm[:-1]).max(axis=1) >= MIN_MOTION_RAD
        before = np.abs(seen[:-1] - arm[:-1]).max(axis=1)
        after = np.abs(seen[:-1] - arm[1:]).max(axis=1)

    def clear(near: np.ndarray, far: np.ndarray) -> int:
        return int((moves & (near <= MAX_DISTANCE_RAD) & (near <= _CLEARLY * far)).sum())

    return Evidence(clear(before, after), clear(after, before))


def evidence_of(file: Hdf5File, group: str) -> Evidence:
    """Evidence of one episode; none if it has no states or no joints.

    Raises:
        DataError: one of the two has another shape than (T, ...) with T actions, or cannot be read.
    """
    keys = [f"{group}/{name}" for name in ("actions", STATES, JOINTS)]
    if not all(key in file for key in keys):
        return Evidence()
    actions, states, joints = (file.describe(key) for key in keys)
    expected = {keys[1]: (states, "at least 8 numbers"), keys[2]: (joints, f"{NUM_JOINTS} numbers")}
    for key, (found, numbers) in expected.items():
        fits = len(found.shape) == 2 and found.shape[:1] == actions.shape[:1] and found.dtype[1:2] in "biuf"
        wide = fits and (found.shape[1] > NUM_JOINTS if found is states else found.shape[1] == NUM_JOINTS)
        if not wide:
            raise DataError(
                f"{file.path}: {key} has shape {found.shape} and type {found.dtype}, expected {numbers} for each of "
                f"the {(*actions.shape, 0)[0]} actions.",
                REMEDY,
            )
    return weigh(file.read(keys[1]), file.read(keys[2]))


def find_alignment(file: Hdf5File, groups: Sequence[str], chosen: Alignment | None = None) -> Alignment:
    """Alignment of a file with the episodes `groups`: what its numbers show; if they show nothing, `chosen` or the
    attribute `pokevla_obs_alignment` of `data`. Episodes that cannot be read are passed over here.

    Raises:
        DataError: nothing tells it, or `chosen` or the attribute contradicts the numbers. Names the file.
    """
    told = file.attribute("data", ATTRIBUTE)
    if not isinstance(told, str | None) or told not in (None, "before", "after"):
        raise DataError(f"{file.path}: attribute `{ATTRIBUTE}` of data is not `before` or `after`.", REMEDY)
    total, unreadable = Evidence(), None
    for group in groups:
        try:
            total += evidence_of(file, group)
        except DataError as error:  # raised again when the episode is read, unless it may be left out
            unreadable = unreadable or error
            continue
        if total.rows >= _ENOUGH_ROWS and total.verdict is not None:
            break
    shown, claim = total.verdict, chosen or told
    if shown is None:
        if claim is None:
            raise unreadable or DataError(
                f"{file.path}: neither its joints and states nor an attribute tell whether the observations were made "
                "before or after the action of their row.",
                CHOOSE,
            )
        return "before" if claim == "before" else "after"
    if claim is not None and claim != shown:
        source = "--alignment" if chosen is not None else f"attribute `{ATTRIBUTE}` of data"
        raise DataError(
            f"{file.path}: {source} says the observations were made {claim} the action of their row, but in "
            f"{max(total.before, total.after)} of {total.rows} rows the joints are those {shown} it.",
            "Leave the option out." if chosen is not None else f"If the joints are right, pass --alignment {shown}.",
        )
    return shown


def refuse_other_alignment(file: Hdf5File, group: str, alignment: Alignment) -> None:
    """Raise DataError if the numbers of an episode clearly show another alignment than that of its file."""
    own = evidence_of(file, group)
    if own.verdict not in (None, alignment):
        raise DataError(
            f"{file.path}: {group} was observed {own.verdict} the action of each row, unlike the other episodes of the "
            "file.",
            "Check where the file comes from, or leave this episode out.",
        )
