"""What is taken of a LeRobot dataset: the user's options, completed from its metadata."""

from __future__ import annotations

from collections.abc import Callable

from pokevla.data.recordings.fields import (
    Options,
    Selection,
    build_embodiment,
    choose_sources,
    column_names,
    parse_camera,
    parse_gripper,
    plain_name,
    refuse_control_mode,
)
from pokevla.data.recordings.lerobot.metadata import Metadata
from pokevla.embodiment.description import ControlMode
from pokevla.errors import UsageError

STATE, ACTION = "observation.state", "action"


def choose(metadata: Metadata, options: Options, on_note: Callable[[str], None]) -> Selection:
    """The cameras, fields and robot that the options and the metadata give. `on_note` hears what was assumed.

    Raises:
        UsageError: an option is malformed or names something the dataset lacks, or one is needed.
    """
    known = metadata.columns()
    _refuse_depth(metadata, options)
    if metadata.depth_maps and not options.cameras:
        on_note(f"depth maps are left out: {', '.join(metadata.depth_maps)}")
    cameras, state, action = choose_sources(options, (STATE, ACTION), metadata.cameras, known, str(metadata.root))
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


def _refuse_depth(metadata: Metadata, options: Options) -> None:
    for text in options.cameras:
        if parse_camera(text)[1] in metadata.depth_maps:
            raise UsageError(
                f"--camera {text}: it is a depth map, and policies see colour images only.",
                f"Leave it out; colour cameras are {', '.join(metadata.cameras) or 'none'}.",
            )


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
