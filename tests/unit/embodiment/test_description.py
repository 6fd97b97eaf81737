"""A description is stored completely, and an inconsistent one is refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from pokevla.embodiment.description import Embodiment, FieldSpec, Gripper
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError
from tests.unit.embodiment.robots import TWO_HANDED


def test_widths_are_the_sums_of_the_fields() -> None:
    assert (LIBERO.num_views, LIBERO.proprio_width, LIBERO.action_width) == (2, 8, 7)
    assert (TWO_HANDED.num_views, TWO_HANDED.proprio_width, TWO_HANDED.action_width) == (3, 10, 9)


@pytest.mark.parametrize("embodiment", [LIBERO, TWO_HANDED])
def test_json_gives_back_the_same_description(embodiment: Embodiment) -> None:
    values = embodiment.to_dict()
    assert json.loads(json.dumps(values)) == values
    assert Embodiment.from_dict(values) == embodiment


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": ()}, "0 views; 1 to 4"),
        ({"views": ("a", "b", "c", "d", "e")}, "5 views; 1 to 4"),
        ({"views": ("front", "front")}, "the view 'front' occurs twice"),
        ({"views": ("front.left",)}, "view 'front.left': use letters"),
        ({"name": "my robot"}, "the name should consist of letters"),
        ({"proprio": (FieldSpec("joints", 0, "rad"),)}, "'joints' has size 0"),
        ({"proprio": ()}, "at least one proprio field"),
        ({"action_mask": (True,) * 8}, "action_mask has 8 entries for 9 action columns"),
        ({"action_mask": (True,) * 9}, "action_mask scales column 3, a gripper"),
        ({"grippers": (Gripper(9, 1.0, 0.0),)}, "gripper column 9 should be one of 0 to 8"),
        ({"grippers": (Gripper(3, 1.0, 0.0), Gripper(3, 0.0, 1.0))}, "gripper column 3 .* each used once"),
        ({"grippers": (Gripper(3, 1.0, 1.0),)}, "column 3 has the same command, 1, for open and closed"),
        ({"control_mode": "telepathy"}, "control_mode 'telepathy' should be one of delta_end_effector"),
        ({"control_rate_hz": 0.0}, "control_rate_hz should be above 0"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataclasses.replace(TWO_HANDED, **change)


def test_another_schema_version_is_refused() -> None:
    with pytest.raises(DataError, match="schema version 2, this code reads 1"):
        Embodiment.from_dict({**LIBERO.to_dict(), "schema_version": 2})


@pytest.mark.parametrize("change", [{"views": None}, {"proprio": [{"name": "joints"}]}, {"version": "new"}])
def test_a_damaged_description_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="the description of the embodiment is damaged"):
        Embodiment.from_dict({**LIBERO.to_dict(), **change})
