"""The description of a robot: its views, state and commands, and its JSON form.

Everything that depends on the robot takes its widths and conventions from here. Datasets, checkpoints and exports store
the description, so they do not need the code that defined it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from pokevla.errors import DataError

SCHEMA_VERSION = 1
"""Version of the JSON form. `Embodiment.version` counts the changes of one robot's description."""
MAX_VIEWS = 4
ControlMode = Literal[
    "delta_end_effector", "absolute_end_effector", "delta_joint", "absolute_joint", "end_effector_velocity",
    "joint_velocity",
]  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class FieldSpec:
    """A group of adjacent proprio or action columns, such as a position."""

    name: str
    size: int
    unit: str
    """Unit of each column: `m`, `rad`, `N`; `1` if dimensionless; `0.05 m` if a value of 1 means 5 cm."""


@dataclass(frozen=True)
class Gripper:
    """One gripper and the action column that commands it.

    Raw commands are between `open` and `closed`. The model uses 1 for open and 0 for closed for every robot
    (`pokevla.data.statistics`).
    """

    column: int
    open: float
    closed: float

    @property
    def middle(self) -> float:
        """The raw command halfway between open and closed."""
        return (self.open + self.closed) / 2


@dataclass(frozen=True)
class Embodiment:
    """One embodiment.

    Raises:
        DataError: the description is inconsistent. The message names the field.
    """

    name: str
    version: int
    """Increases when the description changes under the same name."""
    views: tuple[str, ...]
    """Cameras in the order of every image tensor, 1 to 4. The first one is the main view, which is placed right before
    the instruction. In a dataset's samples the members are named `VIEW.jpg` and `VIEW.mask.png`."""
    proprio: tuple[FieldSpec, ...]
    """Fields of the robot's own state, in order."""
    action: tuple[FieldSpec, ...]
    """Fields of the command for one control step, in order."""
    grippers: tuple[Gripper, ...]
    action_mask: tuple[bool, ...]
    """One entry per action column: True if the q01-q99 rule scales it to [-1, 1]; False for grippers and for columns
    that the model predicts unscaled."""
    control_mode: ControlMode
    """Meaning of the action fields: differences from the current pose, absolute targets, or velocities."""
    control_rate_hz: float
    """Actions per second."""

    @property
    def num_views(self) -> int:
        """V."""
        return len(self.views)

    @property
    def proprio_width(self) -> int:
        """P, the number of proprio columns."""
        return sum(field.size for field in self.proprio)

    @property
    def action_width(self) -> int:
        """A, the number of action columns."""
        return sum(field.size for field in self.action)

    @property
    def mask_members(self) -> frozenset[str]:
        """Names of the members of a sample that hold the masks, one per view."""
        return frozenset(f"{view}.mask.png" for view in self.views)

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise DataError(f"embodiment {self.name!r}: {problem}", "Correct its description.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values that a JSON round trip leaves unchanged."""
        values = dataclasses.asdict(self)
        return {
            "schema_version": SCHEMA_VERSION,
            **{name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
        }

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Inverse of `to_dict`.

        Raises:
            DataError: not a valid mapping, another schema version, or an inconsistent description.
        """
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(
                f"the description of the embodiment has schema version {version}, this code reads {SCHEMA_VERSION}.",
                "Use the version of PokeVLA that wrote it.",
            )
        try:
            return cls(
                name=str(values["name"]),
                version=int(values["version"]),
                views=tuple(str(view) for view in values["views"]),
                proprio=tuple(FieldSpec(**field) for field in values["proprio"]),
                action=tuple(FieldSpec(**field) for field in values["action"]),
                grippers=tuple(Gripper(**gripper) for gripper in values["grippers"]),
                action_mask=tuple(bool(scaled) for scaled in values["action_mask"]),
                control_mode=values["control_mode"],
                control_rate_hz=float(values["control_rate_hz"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the description of the embodiment is damaged ({error!r}).") from error


def _problems(embodiment: Embodiment) -> list[str]:
    """The inconsistencies of a description, one sentence each."""
    problems = []
    if not _NAME.fullmatch(embodiment.name):
        problems.append("the name should consist of letters, digits, dash and underscore.")
    if not 1 <= len(embodiment.views) <= MAX_VIEWS:
        problems.append(f"it has {len(embodiment.views)} views; 1 to {MAX_VIEWS} are possible.")
    for what, names in (
        ("view", embodiment.views),
        ("proprio field", [field.name for field in embodiment.proprio]),
        ("action field", [field.name for field in embodiment.action]),
    ):
        problems += [f"the {what} {name!r} occurs twice." for name, count in Counter(names).items() if count > 1]
        problems += [
            f"{what} {name!r}: use letters, digits, dash and underscore." for name in names if not _NAME.fullmatch(name)
        ]
    for field in (*embodiment.proprio, *embodiment.action):
        if field.size < 1:
            problems.append(f"the field {field.name!r} has size {field.size}; at least 1 is needed.")
    if not embodiment.proprio or not embodiment.action:
        problems.append("it needs at least one proprio field and one action field.")
    return problems + _action_problems(embodiment)


def _action_problems(embodiment: Embodiment) -> list[str]:
    """The inconsistencies in action columns, control mode and control rate, one sentence each."""
    problems, width = [], embodiment.action_width
    if len(embodiment.action_mask) != width:
        problems.append(f"action_mask has {len(embodiment.action_mask)} entries for {width} action columns.")
    columns = [gripper.column for gripper in embodiment.grippers]
    for gripper in embodiment.grippers:
        if not 0 <= gripper.column < width or columns.count(gripper.column) > 1:
            problems.append(f"gripper column {gripper.column} should be one of 0 to {width - 1}, each used once.")
        elif len(embodiment.action_mask) == width and embodiment.action_mask[gripper.column]:
            problems.append(f"action_mask scales column {gripper.column}, a gripper: it should be False there.")
        if gripper.open == gripper.closed:
            problems.append(
                f"gripper column {gripper.column} has the same command, {gripper.open:g}, for open and closed."
            )
    if embodiment.control_mode not in get_args(ControlMode):
        modes = ", ".join(get_args(ControlMode))
        problems.append(f"control_mode {embodiment.control_mode!r} should be one of {modes}.")
    if embodiment.control_rate_hz <= 0:
        problems.append(f"control_rate_hz should be above 0, not {embodiment.control_rate_hz:g}.")
    return problems
