"""Names of LIBERO-Plus tasks: the official examples, and every name that the rules can form."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.errors import SimulationError
from pokevla.simulation.libero_plus.checkout import NUM_TASKS, TABLE, open_checkout
from pokevla.simulation.libero_plus.names import CameraMove, parse_name, spoken
from tests.libero_plus import SAMPLE, official_checkout

BASE = "put_the_bowl_on_the_stove"


@pytest.mark.parametrize(
    ("name", "kind", "file", "number"),
    [
        (f"{BASE}_view_0_0_100_0_0_initstate_42", "robot", BASE, 42),
        (f"{BASE}_view_0_0_100_0_0_initstate_0_noise_35", "noise", BASE, 35),
        (f"{BASE}_language_3_view_0_0_100_0_0_initstate_0", "language", f"{BASE}_language_3", 0),
        (f"{BASE}_moved_level2_sample1", "moved", f"{BASE}_moved_level2_sample1", 0),
        (f"{BASE}_level2_sample1", "moved", f"{BASE}_level2_sample1", 0),
        (f"{BASE}_add_14", "added", f"{BASE}_add_14", 0),
        (f"{BASE}_light_11", "light", f"{BASE}_light_11", 0),
        (f"{BASE}_table_1", "background", f"{BASE}_table_1", 0),
        (f"{BASE}_tb_12", "background", f"{BASE}_tb_12", 0),
    ],
)
def test_each_kind_is_read_from_its_suffix(name: str, kind: str, file: str, number: int) -> None:
    parts = parse_name(name)

    assert (parts.kind, parts.base, parts.file) == (kind, BASE, file)
    assert parts.robot + parts.noise == number
    assert parts.camera == CameraMove()


@given(st.integers(0, 359), st.integers(0, 30), st.integers(100, 200), st.integers(0, 359), st.integers(0, 359))
def test_every_camera_move_is_read_back(turn: int, tilt: int, distance: int, aim_turn: int, aim_tilt: int) -> None:
    move = CameraMove(turn, tilt, distance, aim_turn, aim_tilt)
    name = f"{BASE}_view_{turn}_{tilt}_{distance}_{aim_turn}_{aim_tilt}_initstate_0"
    if move == CameraMove():
        with pytest.raises(SimulationError, match="names no perturbation"):
            parse_name(name)
    else:
        parts = parse_name(name)
        assert (parts.kind, parts.camera, parts.file) == ("camera", move, BASE)


@given(st.text(max_size=80))
def test_any_text_is_a_task_or_a_named_error(text: str) -> None:
    try:
        base = parse_name(text).base
    except SimulationError:
        return
    assert text.startswith(base)


@pytest.mark.parametrize(
    "name",
    [
        BASE,
        "",
        f"{BASE}_view_1_0_100_0_0_initstate_3",  # two perturbations at once
        f"{BASE}_view_0_0_100_0_0_initstate_501",
        f"{BASE}_view_0_0_100_0_0_initstate_0_noise_51",
        f"{BASE}_light_3_view_5_0_100_0_0_initstate_0",
    ],
)
def test_a_name_without_one_official_perturbation_is_refused(name: str) -> None:
    with pytest.raises(SimulationError):
        parse_name(name)


def test_scenes_are_not_spoken() -> None:
    assert spoken("KITCHEN_SCENE3_turn_on_the_stove") == "turn on the stove"
    assert spoken("LIVING_ROOM_SCENE10_put_the_mug_down") == "put the mug down"
    assert spoken("open_the_drawer_view_1_0_100_0_0_initstate_0") == "open the drawer view 1 0 100 0 0 initstate 0"


def test_the_categories_of_the_sample_follow_from_its_names() -> None:
    table = json.loads((SAMPLE / "task_classification.json").read_text(encoding="utf-8"))
    for tasks in table.values():
        for task in tasks:
            assert parse_name(task["name"]).category == task["category"]


def test_all_10030_official_names_give_their_official_category() -> None:
    folder = official_checkout()
    table = next(file for file in (folder / TABLE, folder / "task_classification.json") if file.is_file())
    official = json.loads(table.read_text(encoding="utf-8"))
    rows = open_checkout(folder).rows

    assert {suite: len(tasks) for suite, tasks in official.items()} == NUM_TASKS
    assert sum(NUM_TASKS.values()) == 10_030
    for suite, tasks in official.items():
        for task, row in zip(tasks, rows[suite], strict=True):
            assert (row.index + 1, row.name, row.level) == (task["id"], task["name"], task["difficulty_level"])
            assert row.category == row.parts.category == task["category"]
