"""Which columns of a source become views, proprio and actions, as the user writes it, and the embodiment they give.

base=observation.images.front        a view and its camera
joints=observation.state[0:7]@rad    a field, its source, columns and unit; all but the source may be left out
gripper.pos=100,0                    a gripper: action column (number or name), raw command for open and for closed
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from pokevla.embodiment.description import MAX_VIEWS, ControlMode, Embodiment, FieldSpec, Gripper
from pokevla.errors import UsageError

_FIELD = re.compile(
    r"(?:(?P<name>[A-Za-z0-9_-]+)=)?(?P<source>[^\[\]@=]+?)(?:\[(?P<start>\d*):(?P<stop>\d*)\])?(?:@(?P<unit>.+))?"
)
NO_UNIT = "1"


@dataclass(frozen=True)
class FieldSource:
    """Columns of a source that become a field of the embodiment."""

    name: str
    source: str
    start: int = 0
    stop: int | None = None
    """None: to the last column."""
    unit: str | None = None
    """None: as the source says."""


@dataclass(frozen=True)
class Column:
    """What a source says about one array of numbers."""

    width: int
    names: tuple[str, ...] = ()
    """Name of each column; empty if the source has none."""
    unit: str | None = None


@dataclass(frozen=True)
class Selection:
    """What of a source is taken, resolved: every width is known."""

    cameras: tuple[tuple[str, str], ...]
    """(view, source)."""
    state: tuple[FieldSource, ...]
    action: tuple[FieldSource, ...]
    embodiment: Embodiment

    @property
    def sources(self) -> tuple[str, ...]:
        """Arrays that have to be read, each once."""
        return tuple(dict.fromkeys(field.source for field in (*self.state, *self.action)))


@dataclass(frozen=True)
class Options:
    """Options of a conversion, as written; empty ones are filled from the metadata."""

    cameras: Sequence[str] = ()
    state: Sequence[str] = ()
    action: Sequence[str] = ()
    grippers: Sequence[str] = ()
    control_mode: str | None = None
    rate_hz: float | None = None
    robot: str | None = None


def choose_sources(
    options: Options, defaults: tuple[str, str], cameras: Sequence[str], known: dict[str, Column], where: str
) -> tuple[tuple[tuple[str, str], ...], tuple[FieldSource, ...], tuple[FieldSource, ...]]:
    """Cameras (view, source), state and action that the options name; without them all cameras and the `defaults`.

    Args:
        options: what the user wrote.
        defaults: sources of state and action.
        cameras: those of the dataset.
        known: its arrays of numbers.
        where: the dataset, for messages.

    Raises:
        UsageError: an option is malformed or names something the dataset lacks, or there are too many cameras.
    """
    listed = ", ".join(cameras) or "none"
    if not options.cameras and not 1 <= len(cameras) <= MAX_VIEWS:
        raise UsageError(
            f"{where} has {len(cameras)} cameras ({listed}); a robot has 1 to {MAX_VIEWS} views.",
            "Choose some with --camera VIEW=SOURCE, the main one first.",
        )
    views = tuple(map(parse_camera, options.cameras or cameras))
    for _, camera in views:
        if camera not in cameras:
            raise UsageError(f"--camera {camera}: the dataset has no such camera.", f"It has {listed}.")
    state, action = (
        resolve_fields(option, [parse_field(option, text) for text in texts or [default]], known, where)
        for option, texts, default in zip(
            ("--state", "--action"), (options.state, options.action), defaults, strict=True
        )
    )
    return views, state, action


def parse_camera(text: str) -> tuple[str, str]:
    """(view, source) of `VIEW=SOURCE` or `SOURCE`, whose view is its last part. Raises UsageError."""
    view, equals, source = text.partition("=")
    if not equals:
        source, view = text, plain_name(text)
    if not view or not source:
        raise UsageError(f"--camera {text}: a view or its source is missing.", "Write --camera base=SOURCE.")
    return view, source


def parse_field(option: str, text: str) -> FieldSource:
    """A field of `[NAME=]SOURCE[start:stop][@UNIT]`. Raises UsageError naming the option."""
    match = _FIELD.fullmatch(text)
    if match is None:
        raise UsageError(f"{option} {text}: not of the form NAME=SOURCE[start:stop]@UNIT.", "See docs/own_robot.md.")
    source = match["source"]
    start, stop = int(match["start"] or 0), int(match["stop"]) if match["stop"] else None
    return FieldSource(match["name"] or plain_name(source), source, start, stop, match["unit"])


def parse_gripper(text: str, names: Sequence[str], width: int) -> Gripper:
    """A gripper of `COLUMN=OPEN,CLOSED`; `names` of the action columns may be empty. Raises UsageError."""
    column, _, commands = text.rpartition("=")
    try:
        opened, closed = (float(number) for number in commands.split(","))
        place = int(column) if re.fullmatch(r"\d+", column) else list(names).index(column)
    except ValueError as error:
        known = f"a number below {width}" + (f", or one of {', '.join(names)}" if names else "")
        raise UsageError(
            f"--gripper {text}: not of the form COLUMN=OPEN,CLOSED.",
            f"COLUMN is {known}; OPEN and CLOSED are raw commands, such as 1,0.",
        ) from error
    return Gripper(place, opened, closed)


def plain_name(source: str) -> str:
    """The last part of a name, as the name of a field or view: `observation.images.front` is `front`."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", re.split(r"[./]", source)[-1]).strip("_-") or "field"


def resolve_fields(
    option: str, fields: Sequence[FieldSource], known: dict[str, Column], where: str
) -> tuple[FieldSource, ...]:
    """The fields with every width and unit known.

    Raises:
        UsageError: a source does not exist, or lacks a column.
    """
    resolved = []
    for each in fields:
        column = known.get(each.source)
        if column is None:
            raise UsageError(f"{option} {each.source}: {where} has no such array.", f"It has {', '.join(known)}.")
        stop = column.width if each.stop is None else each.stop
        if not each.start < stop <= column.width:
            raise UsageError(
                f"{option} {each.source}[{each.start}:{stop}]: it has {column.width} columns.", "Give other columns."
            )
        resolved.append(replace(each, stop=stop, unit=each.unit or column.unit or NO_UNIT))
    return tuple(resolved)


def column_names(fields: Sequence[FieldSource], known: dict[str, Column]) -> tuple[str, ...]:
    """Names of all columns of resolved fields; empty if a source has none."""
    names: list[str] = []
    for each in fields:
        own = known[each.source].names
        if len(own) != known[each.source].width:
            return ()
        names += own[each.start : each.stop]
    return tuple(names)


def gather(fields: Sequence[FieldSource], arrays: dict[str, np.ndarray]) -> np.ndarray:
    """(T, D) float64: the columns of resolved fields side by side."""
    return np.concatenate([arrays[f.source][:, f.start : f.stop].astype(np.float64) for f in fields], axis=1)


def refuse_control_mode(mode: str) -> ControlMode:
    """The control mode of that name. Raises UsageError if there is none."""
    modes: tuple[ControlMode, ...] = get_args(ControlMode)
    for known in modes:
        if mode == known:
            return known
    raise UsageError(f"--control-mode {mode} is unknown.", f"Give one of {', '.join(modes)}.")


def build_embodiment(
    name: str,
    views: Sequence[str],
    state: Sequence[FieldSource],
    action: Sequence[FieldSource],
    grippers: Sequence[Gripper],
    control_mode: ControlMode,
    rate_hz: float,
) -> Embodiment:
    """The robot that resolved fields describe. All action columns but grippers are scaled.

    Raises:
        DataError: the description is inconsistent: two fields of one name, too many views.
    """
    commanded = {gripper.column for gripper in grippers}
    return Embodiment(
        name=name,
        version=1,
        views=tuple(views),
        proprio=_specs(state),
        action=_specs(action),
        grippers=tuple(grippers),
        action_mask=tuple(column not in commanded for column in range(sum(spec.size for spec in _specs(action)))),
        control_mode=control_mode,
        control_rate_hz=rate_hz,
    )


def _specs(fields: Sequence[FieldSource]) -> tuple[FieldSpec, ...]:
    return tuple(FieldSpec(f.name, (f.stop or 0) - f.start, f.unit or NO_UNIT) for f in fields)
