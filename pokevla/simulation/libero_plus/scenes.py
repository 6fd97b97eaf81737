"""Scenes of the light and background tasks: which files they need, and LIBERO scene classes that use them.

LIBERO-Plus has a Python class for each of its 7,620 scenes, which differ in three texts: the scene's XML, the style of
its floor and that of its wall. These are read from the checkout's files as text; its code is not run. XML and textures
are in the assets folder, which is published apart from the repository.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from pokevla.errors import SimulationError
from pokevla.simulation.libero_plus.assets import installed_assets

_MAX_BYTES = 1 << 24
_CLASS = re.compile(r"^class (\w+)\((\w+)\):$", re.MULTILINE)
_TEXTS = {
    key: re.compile(rf'"{key}": "([^"\n]+)"') for key in ("scene_xml", "floor_style", "wall_style")
}  # fmt: skip
TEXTURES = "textures"
NEEDS_ASSETS = "it needs the assets of LIBERO-Plus (trials.libero_plus_assets)"


@dataclass(frozen=True)
class SceneClass:
    """A scene class of the checkout. `base`: the class of LIBERO that it specialises."""

    name: str
    base: str
    scene_xml: str
    floor_style: str
    wall_style: str


@dataclass(frozen=True)
class Scene:
    """A scene whose files are all there. `textures`: file names of floor and wall."""

    of: SceneClass
    xml: Path
    textures: tuple[str, str]


def find_scene(code: Path, assets: Path | None, problem: str) -> Scene | str:
    """The scene of a BDDL file's problem class (lower case), or the reason why it cannot be built."""
    if not (code / "problems").is_dir():
        return f"the checkout has no {code}, which names the files of each scene"
    found = scene_classes(code).get(problem)
    if found is None:
        return f"the checkout defines no scene {problem}"
    floors, walls = _styles(code)
    floor, wall = floors.get(found.floor_style), walls.get(found.wall_style)
    if floor is None or wall is None:
        return f"the checkout defines no style {found.wall_style if floor else found.floor_style}"
    needed = (found.scene_xml, f"{TEXTURES}/{floor}", f"{TEXTURES}/{wall}")
    if any(not is_inside(name) for name in needed):
        return f"its scene {problem} names a file outside the assets"
    for folder in (assets, installed_assets()):
        if folder is not None and all((folder / name).is_file() for name in needed):
            return Scene(found, folder / found.scene_xml, (floor, wall))
    if assets is None:
        return NEEDS_ASSETS
    missing = next(name for name in needed if not (assets / name).is_file())
    return f"{missing} is missing in {assets}"


def register_scene(scene: Scene) -> None:
    """Make LIBERO know the scene's class, under the name in its BDDL files. Imports MuJoCo."""
    from libero.libero.envs.arenas.style import STYLE_MAPPING
    from libero.libero.envs.bddl_base_domain import TASK_MAPPING
    from libero.libero.envs.regions import REGION_SAMPLERS

    base = TASK_MAPPING[scene.of.base.lower()]
    for place, style, texture in zip(
        ("floor", "wall"), (scene.of.floor_style, scene.of.wall_style), scene.textures, strict=True
    ):
        STYLE_MAPPING[place].setdefault(style, texture)
    styles = {"floor_style": scene.of.floor_style, "wall_style": scene.of.wall_style}

    def create(self: Any, bddl_file_name: str, *args: Any, **kwargs: Any) -> None:
        kwargs.update(scene_xml=str(scene.xml), scene_properties=dict(styles))
        base.__init__(self, bddl_file_name, *args, **kwargs)

    key = scene.of.name.lower()
    TASK_MAPPING[key] = type(scene.of.name, (base,), {"__init__": create})
    REGION_SAMPLERS[key] = REGION_SAMPLERS[scene.of.base.lower()]


@cache
def scene_classes(code: Path) -> dict[str, SceneClass]:
    """Scene classes of the checkout by lower-case name, without LIBERO's own."""
    bodies: dict[str, tuple[str, str, str]] = {}
    for file in sorted((code / "problems").glob("libero_*.py")):
        text = read_code(file)
        heads = list(_CLASS.finditer(text))
        ends = [head.start() for head in heads[1:]] + [len(text)]
        for head, end in zip(heads, ends, strict=True):
            bodies[head[1]] = (head[1], head[2], text[head.end() : end])
    own = {name: _texts(body) for name, (_, _, body) in bodies.items()}
    classes = {}
    for name, base, _ in bodies.values():
        texts = {**own.get(base, {}), **own[name]}
        if base in own and len(texts) == len(_TEXTS):
            classes[name.lower()] = SceneClass(name, base, **texts)
    return classes


def _texts(body: str) -> dict[str, str]:
    found = {key: pattern.search(body) for key, pattern in _TEXTS.items()}
    return {key: match[1] for key, match in found.items() if match is not None}


@cache
def _styles(code: Path) -> tuple[dict[str, str], dict[str, str]]:
    """File names of the textures of floor and wall styles."""
    file = code / "arenas/style.py"
    try:
        tree = ast.parse(read_code(file))
        assigned = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        return ast.literal_eval(assigned["FLOOR_STYLE"]), ast.literal_eval(assigned["WALL_STYLE"])
    except (SyntaxError, ValueError, KeyError, RecursionError) as error:
        raise SimulationError(
            f"{file} cannot be read ({error}).", "Take LIBERO-Plus from github.com/sylvestf/LIBERO-plus anew."
        ) from error


def read_code(file: Path) -> str:
    """Text of a file of code. SimulationError if it cannot be read or is too large."""
    remedy = "Take LIBERO-Plus from github.com/sylvestf/LIBERO-plus anew."
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise SimulationError(f"{file} is larger than {_MAX_BYTES} bytes.", remedy)
        return content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SimulationError(f"{file} cannot be read ({error}).", remedy) from error


def is_inside(name: str) -> bool:
    """Whether a path that a file names stays below the folder it is relative to."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
