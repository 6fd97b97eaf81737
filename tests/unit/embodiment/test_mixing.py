"""Two robots share a model only if all widths match."""

from __future__ import annotations

import dataclasses

import pytest

from pokevla.embodiment.description import Gripper
from pokevla.embodiment.libero import LIBERO
from pokevla.embodiment.mixing import common_embodiment, misfits
from pokevla.errors import RecipeError
from tests.unit.embodiment.robots import TWO_HANDED


def test_what_differs_is_named() -> None:
    with pytest.raises(RecipeError) as caught:
        common_embodiment([("data/a", LIBERO), ("data/b", LIBERO), ("data/c", TWO_HANDED)])
    assert str(caught.value).startswith(
        "data.datasets: data/a (embodiment libero) and data/c (embodiment two-handed) cannot be mixed: "
        "views base, wrist against front, left, right; proprio width 8 against 10; action width 7 against 9."
    )


def test_robots_of_equal_widths_can_be_mixed_and_the_first_one_counts() -> None:
    faster = dataclasses.replace(LIBERO, name="panda", control_rate_hz=50.0)
    assert common_embodiment([("a", faster), ("b", LIBERO)]) is faster


def test_views_in_another_order_do_not_fit() -> None:
    turned = dataclasses.replace(LIBERO, views=LIBERO.views[::-1])
    assert misfits(LIBERO, turned) == ["views base, wrist against wrist, base"]


def test_an_opposite_gripper_and_other_scaled_columns_do_not_fit() -> None:
    opposite = dataclasses.replace(LIBERO, grippers=(Gripper(6, 1.0, -1.0),))
    assert misfits(LIBERO, opposite) == ["grippers column 6 open -1 closed 1 against column 6 open 1 closed -1"]
    unscaled = dataclasses.replace(LIBERO, action_mask=(True,) * 5 + (False,) * 2)
    assert misfits(LIBERO, unscaled) == ["normalised action columns 0, 1, 2, 3, 4, 5 against 0, 1, 2, 3, 4"]
