"""What the name of a LIBERO-Plus task says.

Rules: sylvestf/LIBERO-plus, `ControlEnv.__init__` in libero/libero/envs/env_wrapper.py for camera, robot and noise, and
`get_task_init_states` in libero/libero/benchmark/__init__.py for the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pokevla.errors import SimulationError

Kind = Literal["camera", "robot", "language", "noise", "background", "light", "moved", "added"]
CATEGORY: dict[Kind, str] = {
    "camera": "Camera Viewpoints",
    "robot": "Robot Initial States",
    "language": "Language Instructions",
    "noise": "Sensor Noise",
    "background": "Background Textures",
    "light": "Light Conditions",
    "moved": "Objects Layout",
    "added": "Objects Layout",
}
"""Official category of each kind."""
CATEGORIES = tuple(dict.fromkeys(CATEGORY.values()))
SHARING: frozenset[Kind] = frozenset({"camera", "language", "noise"})
"""Kinds whose tasks are one simulation with their base task, seen or worded otherwise."""
NUM_ROBOT_STATES = 500
NUM_NOISES = 50
_NAME = re.compile(
    r"(?P<base>.+?)"
    r"(?:_(?P<variant>table|tb|light|add|language)_(?P<number>\d+)|(?:_moved)?_level(?P<level>\d+)_sample(?P<sample>\d+))?"
    r"(?P<view>_view_(?P<turn>\d+)_(?P<tilt>\d+)_(?P<distance>\d+)_(?P<aim_turn>\d+)_(?P<aim_tilt>\d+)"
    r"_initstate_(?P<robot>\d+)(?:_noise_(?P<noise>\d+))?)?"
)


@dataclass(frozen=True)
class CameraMove:
    """How the base camera is moved. Angles in degrees, as integers of the name.

    `turn` about the world's z axis and `tilt` about an axis parallel to y, both around the workspace; `distance` from
    it in per cent; `aim_turn` and `aim_tilt` turn the camera alone.
    """

    turn: int = 0
    tilt: int = 0
    distance: int = 100
    aim_turn: int = 0
    aim_tilt: int = 0


@dataclass(frozen=True)
class TaskName:
    """The parts of a name. `file` is the name without the part that has no file of its own."""

    kind: Kind
    base: str
    file: str
    camera: CameraMove
    robot: int  # 0: LIBERO's own initial joints; 1 to 500: official variant
    noise: int  # 0: none; 1 to 50

    @property
    def category(self) -> str:
        """The official category."""
        return CATEGORY[self.kind]

    @property
    def spoken(self) -> str:
        """The instruction of the base task as LIBERO takes it from the file name."""
        return spoken(self.base)


def parse_name(name: str) -> TaskName:
    """Read a task's name. SimulationError if it is not one of LIBERO-Plus."""
    found = _NAME.fullmatch(name)
    remedy = "Task names come from task_classification.json of LIBERO-Plus."
    if found is None:  # only an empty name or one with a line break
        raise SimulationError(f"{name!r} is no task name.", remedy)
    part = found.groupdict()
    camera, robot, noise = CameraMove(), 0, 0
    if part["view"]:
        fields = ("turn", "tilt", "distance", "aim_turn", "aim_tilt")
        camera = CameraMove(**{field: int(part[field]) for field in fields})
        robot, noise = int(part["robot"]), int(part["noise"] or 0)
    kinds = _kinds(part, camera, robot, noise)
    if len(kinds) != 1 or robot > NUM_ROBOT_STATES or noise > NUM_NOISES:
        raise SimulationError(f"{name} names {len(kinds) or 'no'} perturbation(s) of LIBERO-Plus.", remedy)
    file = name.removesuffix(part["view"] or "")
    return TaskName(kinds[0], part["base"], file, camera, robot, noise)


def spoken(name: str) -> str:
    """The words of a name as LIBERO speaks them: without the scene of libero_10 and libero_90, blanks for underscores.

    Source: `grab_language_from_filename`, libero/libero/benchmark/__init__.py. LIBERO-Plus applies it to the whole
    name, so that its instructions contain the perturbation.
    """
    words = name
    if name[:1].isupper():
        words = name[name.find("SCENE") + (8 if "SCENE10" in name else 7) :]
    return " ".join(words.split("_"))


def _kinds(part: dict[str, str | None], camera: CameraMove, robot: int, noise: int) -> list[Kind]:
    kinds: list[Kind] = []
    variants: dict[str | None, Kind] = {
        "table": "background", "tb": "background", "light": "light", "add": "added", "language": "language",
    }  # fmt: skip
    if part["variant"]:
        kinds.append(variants[part["variant"]])
    if part["level"]:
        kinds.append("moved")
    if camera != CameraMove():
        kinds.append("camera")
    if robot:
        kinds.append("robot")
    if noise:
        kinds.append("noise")
    return kinds
