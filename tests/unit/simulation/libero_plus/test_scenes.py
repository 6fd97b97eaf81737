"""Scenes and added objects: what is read from the checkout's code, and what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.errors import SimulationError
from pokevla.simulation.libero_plus.added_objects import category_of, find_objects
from pokevla.simulation.libero_plus.scenes import Scene, find_scene, scene_classes

PROBLEMS = """
class Libero_Floor_Manipulation(BDDLBaseDomain):
    def __init__(self, *args, **kwargs):
        kwargs.update({"scene_xml": "scenes/libero_floor_base_style.xml"})
        kwargs.update({"scene_properties": {"floor_style": "light-gray", "wall_style": "light-gray-plaster"}})

class Libero_Floor_Manipulation_Floordark(Libero_Floor_Manipulation):
    def __init__(self, *args, **kwargs):
        kwargs.update({"scene_properties": {"floor_style": "dark", "wall_style": "light-gray-plaster"}})

class Libero_Floor_Manipulation_light_1(Libero_Floor_Manipulation):
    def __init__(self, *args, **kwargs):
        kwargs.update({"scene_xml": "scenes/floor/light_1.xml"})

class Libero_Floor_Manipulation_outside(Libero_Floor_Manipulation):
    def __init__(self, *args, **kwargs):
        kwargs.update({"scene_xml": "scenes/../../light_1.xml"})

class Libero_Floor_Manipulation_nostyle(Libero_Floor_Manipulation):
    def __init__(self, *args, **kwargs):
        kwargs.update({"scene_properties": {"floor_style": "velvet", "wall_style": "light-gray-plaster"}})
"""
STYLES = """
FLOOR_STYLE = {"light-gray": "light_gray_floor.png", "dark": "dark_floor_texture.png"}
WALL_STYLE = {"light-gray-plaster": "light-gray-plaster.png"}
"""
OBJECTS = """
class AlarmClock_1(CustomObjects):
    def __init__(self, name="alarm_clock__1"):
        custom_path = os.path.join(str(absolute_path), f"assets/new_objects/alarm_clock/a/usd/MJCF/a.xml")
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Files in the form of the official ones."""
    for name, text in (
        ("problems/libero_floor_manipulation.py", PROBLEMS),
        ("arenas/style.py", STYLES),
        ("objects/custom_objects.py", OBJECTS),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_scene_takes_what_it_does_not_say_from_its_base(code: Path) -> None:
    classes = scene_classes(code)
    dark = classes["libero_floor_manipulation_floordark"]
    assert (dark.scene_xml, dark.floor_style) == ("scenes/libero_floor_base_style.xml", "dark")
    assert classes["libero_floor_manipulation_light_1"].floor_style == "light-gray"
    assert "libero_floor_manipulation" not in classes  # LIBERO's own


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ("libero_floor_manipulation_unknown", "defines no scene"),
        ("libero_floor_manipulation_outside", "names a file outside the assets"),
        ("libero_floor_manipulation_nostyle", "defines no style velvet"),
        ("libero_floor_manipulation_light_1", "needs the assets of LIBERO-Plus"),
    ],
)
def test_a_scene_that_cannot_be_built_says_why(problem: str, reason: str, code: Path) -> None:
    found = find_scene(code, None, problem)
    assert isinstance(found, str)
    assert reason in found


def test_the_assets_folder_supplies_scenes_and_says_what_it_lacks(code: Path, tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    for name in ("scenes/floor/light_1.xml", "textures/light_gray_floor.png", "textures/light-gray-plaster.png"):
        (assets / name).parent.mkdir(parents=True, exist_ok=True)
        (assets / name).write_text("", encoding="utf-8")
    problem = "libero_floor_manipulation_light_1"

    found = find_scene(code, assets, problem)
    assert isinstance(found, Scene)
    assert found.xml == assets / "scenes/floor/light_1.xml"

    (assets / "textures/light_gray_floor.png").unlink()
    assert find_scene(code, assets, problem) == f"textures/light_gray_floor.png is missing in {assets}"


def test_added_objects_are_found_by_category(code: Path, tmp_path: Path) -> None:
    categories = ("basket", "alarm_clock__1")
    assert category_of("AlarmClock_1") == "alarm_clock__1"
    assert "needs the assets" in str(find_objects(code, None, categories))
    assert find_objects(code, None, ("basket",)) == {}

    assets = tmp_path / "assets"
    assert "is missing in" in str(find_objects(code, assets, categories))
    file = assets / "new_objects/alarm_clock/a/usd/MJCF/a.xml"
    file.parent.mkdir(parents=True)
    file.write_text("<mujoco/>", encoding="utf-8")
    assert find_objects(code, assets, categories) == {"alarm_clock__1": file}


def test_styles_that_are_no_plain_table_are_refused(code: Path) -> None:
    (code / "arenas/style.py").write_text(
        "FLOOR_STYLE = dict(a=open('/etc/passwd'))\nWALL_STYLE = {}", encoding="utf-8"
    )
    with pytest.raises(SimulationError, match=r"style\.py cannot be read"):
        find_scene(code, None, "libero_floor_manipulation_light_1")
