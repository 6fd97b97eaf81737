"""Objects that LIBERO-Plus adds to a scene: which files they need, and LIBERO object classes that use them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.simulation.libero_plus.scenes import NEEDS_ASSETS, is_inside, read_code

_CLASS = re.compile(r"^class (\w+)\(CustomObjects\):$", re.MULTILINE)
_FILE = re.compile(r'f?"assets/(new_objects/[^"\n]+\.xml)"')
ROTATION = {"x": (-np.pi / 2, -np.pi / 2), "y": (-np.pi, -np.pi), "z": (np.pi, np.pi)}
"""Angles in rad about each axis, the same for all of them (custom_objects.py)."""


def find_objects(code: Path, assets: Path | None, categories: tuple[str, ...]) -> dict[str, Path] | str:
    """XML file of each category that LIBERO does not have, or the reason why the scene cannot be built."""
    if not (code / "objects").is_dir():
        return f"the checkout has no {code}, which names the files of each object"
    files = object_files(code)
    added = [category for category in categories if category in files]
    if added and assets is None:
        return NEEDS_ASSETS
    found = {category: Path(assets or "", files[category]) for category in added}
    for category, file in found.items():
        if not is_inside(files[category]) or not file.is_file():
            return f"{files[category]} is missing in {assets}"
    return found


@cache
def object_files(code: Path) -> dict[str, str]:
    """File below the assets folder by category, of every class in custom_objects.py, which is read as text."""
    text = read_code(code / "objects/custom_objects.py")
    heads = list(_CLASS.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    files = {}
    for head, end in zip(heads, ends, strict=True):
        file = _FILE.search(text, head.end(), end)
        if file is not None:
            files[category_of(head[1])] = file[1]
    return files


def category_of(class_name: str) -> str:
    """The name in BDDL files: `AlarmClock_1` is `alarm_clock__1` (libero/libero/envs/base_object.py)."""
    return "_".join(re.sub(r"([A-Z0-9])", r" \1", class_name).split()).lower()


def register_objects(files: dict[str, Path]) -> None:
    """Make LIBERO know the objects, under their categories. Imports MuJoCo."""
    import xml.etree.ElementTree as ElementTree

    from libero.libero.envs.base_object import OBJECTS_DICT
    from robosuite.models.objects import MujocoXMLObject

    class AddedObject(MujocoXMLObject):
        def __init__(self, file: Path, category: str, name: str) -> None:
            joints: Any = [{"type": "free", "damping": "0.0005"}]
            super().__init__(str(file), name=name, joints=joints, obj_type="all", duplicate_collision_geoms=False)
            self.category_name = category
            self.object_properties = {"vis_site_names": {}}
            self.rotation, self.rotation_axis = ROTATION, None

        def _get_object_subtree(self) -> Any:
            # robosuite looks for the object one body deeper than these files have it, but for its sites where they are.
            body = self.worldbody.find("./body[@name='object']")
            if body is None:
                return super()._get_object_subtree()
            outer = ElementTree.Element("body")
            outer.append(body)
            self.worldbody.append(outer)
            subtree = super()._get_object_subtree()
            self.worldbody.remove(outer)
            return subtree

    for category, file in files.items():
        OBJECTS_DICT[category] = lambda name, file=file, category=category: AddedObject(file, category, name)
