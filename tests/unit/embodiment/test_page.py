"""The robots that docs/embodiments.md shows can be built, and the paper's own can be planned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pokevla import parts
from pokevla.embodiment.libero import LIBERO
from pokevla.recipe.load import load_recipe
from pokevla.recipe.planning.parts import model_cost
from pokevla.recipe.schema import PosttrainRecipe

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's Python blocks define."""
    monkeypatch.setattr(parts, "EMBODIMENTS", dict(parts.EMBODIMENTS))
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/embodiments.md").read_text(encoding="utf-8"), re.S):
        exec(block, names)
    return names


def test_robots_of_the_page_are_valid(shown: dict[str, Any]) -> None:
    assert (shown["TWO_ARMS"].num_views, shown["TWO_ARMS"].action_width) == (3, 9)
    assert (shown["XARM7"].control_mode, shown["XARM7"].action_width) == ("absolute_joint", 8)


def test_the_recipe_of_the_real_robot_fits_it(shown: dict[str, Any]) -> None:
    variables = {"POKEVLA_DATA": "/data", "POKEVLA_MODELS": "/models"}
    recipe = load_recipe(ROOT / "recipes/posttrain/real_robot.yaml", (), variables).recipe
    assert isinstance(recipe, PosttrainRecipe)
    more = model_cost(recipe, shown["XARM7"]).parameters - model_cost(recipe, LIBERO).parameters
    assert more == 896 + 1  # one more number of the action; proprio has as many as LIBERO's
