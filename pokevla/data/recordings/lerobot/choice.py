"""What is taken of a LeRobot dataset: the user's options, completed from its metadata."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pokevla.data.recordings.fields import (
    Selection,
    build_embodiment,
    column_names,
    parse_camera,
    parse_field,
    parse_gripper,
    plain_name,
    refuse_control_mode,
    resolve_fields,
)
from pokevla.data.recordings.lerobot.metadata import Metadata
from pokevla.embodiment.description import MAX_VIEWS, ControlMode
from pokevla.errors import UsageError

STATE, ACTION = "observation.state", "action"


@dataclass(frozen=True)
class Options:
    """Options of `convert lerobot`, as written; empty ones are filled from the metadata."""

    cameras: Sequence[str] = ()
    state: Sequence[str] = ()
    action: Sequence[str] = ()
    grippers: Sequence[str] = ()
    control_mode: str | None = None
    robot: str | None = None


def choose(metadata: Metadata, options: Options, on_note: Callable[[str], None]) -> Selection:
    """The cameras, fields and robot that the options and the metadata give. `on_note` hears what was assumed.

    Raises:
        UsageError: an option is malformed or names something the dataset lacks, or one is needed.
    """
    cameras = tuple(map(parse_camera, options.cameras or _all_cameras(metadata)))
    for _, camera in cameras:
        if camera not in metadata.cameras:
            known = ", ".join(metadata.cameras) or "none"
            raise UsageError(f"--camera {camera}: the dataset has no such camera.", f"It has {known}.")
    known = metadata.columns()
    where = str(metadata.root)
    state = resolve_fields("--state", [parse_field("--state", t) for t in options.state or [STATE]], known, where)
    action = resolve_fields("--action", [parse_field("--action", t) for t in options.action or [ACTION]], known, where)
    names = column_names(action, known)
    width = sum((field.stop or 0) - field.start for field in action)
    grippers = [parse_gripper(text, names, width) for text in options.grippers]
    observed = {name for field in state for name in known[field.source].names}
    mode = _control_mode(options.control_mode, names, observed, on_note)
    if not grippers:
        on_note("no --gripper: no action column is treated as a gripper's command")
    for field in state:
        if field.unit == "1":
            on_note(f"the unit of {field.name} is unknown (give it with @rad, @deg, @m): its speed is not checked")
    embodiment = build_embodiment(
        plain_name(options.robot or metadata.robot_type),
        [view for view, _ in cameras], state, action, grippers, mode, metadata.fps,
    )  # fmt: skip
    return Selection(cameras, state, action, embodiment)


def _all_cameras(metadata: Metadata) -> list[str]:
    if not 1 <= len(metadata.cameras) <= MAX_VIEWS:
        raise UsageError(
            f"{metadata.root} has {len(metadata.cameras)} cameras ({', '.join(metadata.cameras) or 'none'}); a robot "
            f"has 1 to {MAX_VIEWS} views.",
            "Choose some with --camera VIEW=SOURCE, the main one first.",
        )
    return metadata.cameras


def _control_mode(
    given: str | None, action: tuple[str, ...], observed: set[str], on_note: Callable[[str], None]
) -> ControlMode:
    """What the user says. Without it: commands with the names of columns of the state are targets for them, as in
    recordings of leader and follower arms."""
    if given is not None:
        return refuse_control_mode(given)
    if action and observed.issuperset(action):
        on_note("control mode absolute_joint: the actions have the names of the state's columns")
        return "absolute_joint"
    raise UsageError("The dataset does not say what its actions mean.", "Give --control-mode, such as absolute_joint.")
