"""Checks of the numbers of one episode: what makes it unusable, and what is only reported."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pokevla.data.recordings.episode import Episode
from pokevla.data.recordings.faults import Fault, Finding
from pokevla.data.statistics import open_is_one
from pokevla.embodiment.description import Embodiment, FieldSpec, Gripper
from pokevla.embodiment.finite import bad_number

MIN_FROZEN_S = 1.0
"""A reading that stays bit for bit the same for longer, while others change, is frozen. Encoders have noise. Ours."""
FASTEST = {"rad": 4 * np.pi, "deg": 720.0, "m": 5.0}
"""Speed per second, in the unit of the field, that no arm reaches: above it the state jumps. Ours: twice the fastest
joint of common arms (2 pi rad/s), and more than their tool's speed."""
MIN_IDLE_S = 2.0
"""Shortest idle tail that is reported. Ours."""
IDLE_SHARE = 0.01
"""Movement below this share of a column's range in the episode counts as none."""
_TURN = 2 * np.pi
_FINGERS = ("grip", "finger", "jaw", "claw", "hand")


def refuse_unusable(episode: Episode, embodiment: Embodiment, name: str) -> None:
    """Raise a Fault for shapes, numbers or time stamps with which an episode cannot be used."""
    length = len(episode.actions)
    widths = {"actions": embodiment.action_width, "proprio": embodiment.proprio_width}
    for what, width in widths.items():
        values = getattr(episode, what)
        if values.ndim != 2 or values.shape[1] != width:
            raise Fault("layout", f"{name}: {what} has shape {values.shape}; {embodiment.name} has {width} numbers.")
        if len(values) != length:
            raise Fault("length", f"{name}: {what} has {len(values)} rows, actions has {length}.")
        bad = bad_number(values)
        if bad is not None:
            raise Fault("bad_number", f"{name}: {what}, row {bad[0]}: {bad[1]}.")
    if length == 0:
        raise Fault("length", f"{name} has no frame.")
    absent = [view for view in embodiment.views if view not in episode.frames]
    if absent:
        raise Fault("layout", f"{name} has no images of {', '.join(absent)}.")
    if episode.timestamps is not None:
        _refuse_time(episode.timestamps, length, name)


def _refuse_time(times: np.ndarray, length: int, name: str) -> None:
    if times.shape != (length,):
        raise Fault("length", f"{name}: {times.shape} time stamps for {length} rows.")
    wrong = ~np.isfinite(times)
    wrong[1:] |= ~(np.diff(times) > 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise Fault("timestamps", f"{name}, row {row}: the time stamp {times[row]:.6g} s does not increase.")


def check_numbers(episode: Episode, embodiment: Embodiment, name: str) -> list[Finding]:
    """What is odd about a usable episode."""
    return [
        *_time(episode, embodiment, name),
        *_frozen(episode.proprio, embodiment, name),
        *_jumps(episode.proprio, embodiment, name),
        *_idle(episode, embodiment, name),
        *_angles(episode, embodiment, name),
        *_grippers(episode, embodiment, name),
    ]


def columns_of(fields: tuple[FieldSpec, ...]) -> Iterator[tuple[str, str, int]]:
    """(name, unit, column) of every column: `joints 2`, `rad`, 2."""
    column = 0
    for field in fields:
        for place in range(field.size):
            yield (f"{field.name} {place}" if field.size > 1 else field.name), field.unit, column
            column += 1


def _time(episode: Episode, embodiment: Embodiment, name: str) -> Iterator[Finding]:
    rate = embodiment.control_rate_hz
    for view, own in episode.camera_rates.items():
        if abs(own - rate) > 0.01 * rate:
            yield Finding("camera_rate", f"{name}: {view} has {own:.4g} images per second, the robot {rate:g} actions.")
    if episode.timestamps is None or len(episode.timestamps) < 3:
        return
    steps = np.diff(episode.timestamps) * rate
    usual = float(np.median(steps))
    if abs(usual - 1) > 0.05:
        yield Finding("rate", f"{name}: its time stamps are at {rate / usual:.4g} per second, not {rate:g}.")
    lost = np.round(steps[steps > 1.5 * usual] / usual) - 1
    if len(lost):
        yield Finding("dropped_frames", f"{name}: {len(lost)} gaps, {int(lost.sum())} frames lost.", int(lost.sum()))


def _frozen(proprio: np.ndarray, embodiment: Embodiment, name: str) -> Iterator[Finding]:
    same = np.diff(proprio, axis=0) == 0
    if not len(same):
        return
    others_move = ~same.all(axis=1)
    needed = max(MIN_FROZEN_S * embodiment.control_rate_hz, 0.5 * others_move.sum(), 1)
    for what, _, column in columns_of(embodiment.proprio):
        if any(word in what for word in _FINGERS):  # stands still for most of an episode
            continue
        longest = _longest_run(same[:, column] & others_move)
        if longest >= needed:
            seconds = longest / embodiment.control_rate_hz
            yield Finding("frozen_joint", f"{name}: {what} stays at {proprio[-1, column]:.6g} for {seconds:.3g} s.")


def _longest_run(flags: np.ndarray) -> int:
    """Length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def _jumps(proprio: np.ndarray, embodiment: Embodiment, name: str) -> Iterator[Finding]:
    for what, unit, column in columns_of(embodiment.proprio):
        if unit not in FASTEST:
            continue
        speed = np.abs(np.diff(proprio[:, column].astype(np.float64))) * embodiment.control_rate_hz
        rows = np.flatnonzero(speed > FASTEST[unit])
        if len(rows):
            yield Finding(
                "jump", f"{name}: {what} moves at {speed.max():.3g} {unit}/s, first at row {rows[0] + 1}.", len(rows)
            )


def _idle(episode: Episode, embodiment: Embodiment, name: str) -> Iterator[Finding]:
    """A tail in which neither state nor commands change."""
    rows = np.concatenate([episode.proprio, episode.actions], axis=1).astype(np.float64)
    allowed = IDLE_SHARE * np.ptp(rows, axis=0)
    moved = np.flatnonzero((np.abs(rows - rows[-1]) > allowed).any(axis=1))
    seconds = (len(rows) - 1 - (int(moved[-1]) if len(moved) else 0)) / embodiment.control_rate_hz
    if seconds >= MIN_IDLE_S:
        frames = round(seconds * embodiment.control_rate_hz)
        yield Finding("idle_tail", f"{name}: nothing moves in its last {seconds:.3g} s.", frames)


def _angles(episode: Episode, embodiment: Embodiment, name: str) -> Iterator[Finding]:
    groups = [("proprio", embodiment.proprio, episode.proprio)]
    if embodiment.control_mode.startswith("absolute"):
        groups.append(("action", embodiment.action, episode.actions))
    for what, fields, values in groups:
        start = 0
        for field in fields:
            part = np.abs(values[:, start : start + field.size])
            start += field.size
            if field.unit == "rad" and np.quantile(part, 0.99) > 2 * _TURN:
                yield Finding("degrees", f"{name}: {what} {field.name} reaches {part.max():.4g}, too much for radians.")
            if field.unit == "deg" and field.size > 1 and part.max() <= _TURN and np.ptp(part) > 0:
                yield Finding("degrees", f"{name}: {what} {field.name} stays below {part.max():.4g}: radians?")


def _grippers(episode: Episode, embodiment: Embodiment, name: str) -> Iterator[Finding]:
    for gripper in embodiment.grippers:
        command = episode.actions[:, gripper.column].astype(np.float64)
        low, high = sorted((gripper.open, gripper.closed))
        slack = 0.1 * (high - low)
        outside = int(((command < low - slack) | (command > high + slack)).sum())
        if outside > 0.01 * len(command):
            yield Finding(
                "gripper_range",
                f"{name}: {outside} of {len(command)} commands in action column {gripper.column} lie outside of "
                f"{gripper.open:g} (open) to {gripper.closed:g} (closed).",
                outside,
            )
    fingers = _finger_columns(embodiment)
    if len(fingers) == len(embodiment.grippers):  # in the same order; otherwise nothing tells which belongs to which
        for gripper, columns in zip(embodiment.grippers, fingers, strict=True):
            yield from _inverted(episode, embodiment, gripper, columns, name)


def _finger_columns(embodiment: Embodiment) -> list[slice]:
    """The proprio columns of each field that is named after a gripper or fingers."""
    found, start = [], 0
    for field in embodiment.proprio:
        if any(word in field.name for word in _FINGERS):
            found.append(slice(start, start + field.size))
        start += field.size
    return found


def _inverted(
    episode: Episode, embodiment: Embodiment, gripper: Gripper, columns: slice, name: str
) -> Iterator[Finding]:
    opening = open_is_one(episode.actions, embodiment.grippers)[:, gripper.column]
    fingers = np.abs(episode.proprio[:, columns].astype(np.float64)).mean(axis=1)
    lag = max(1, round(0.3 * embodiment.control_rate_hz))  # a gripper takes some tenths of a second
    opening, fingers = opening[:-lag], fingers[lag:]
    if len(opening) < 10 or not opening.std() or not fingers.std():
        return
    agreement = float(np.corrcoef(opening, fingers)[0, 1])
    if agreement < -0.5:
        yield Finding(
            "gripper_inverted",
            f"{name}: the fingers close when action column {gripper.column} says open (correlation {agreement:.2f}); "
            "are open and closed exchanged?",
        )
