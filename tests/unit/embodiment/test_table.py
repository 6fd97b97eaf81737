"""Look-up of robots by name, including those of other packages."""

from __future__ import annotations

import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.embodiment.table import get_embodiment
from pokevla.errors import RecipeError
from pokevla.parts import EMBODIMENTS
from tests.unit.embodiment.robots import TWO_HANDED


def test_libero_is_known_and_others_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_embodiment("libero") is LIBERO
    monkeypatch.setitem(EMBODIMENTS, TWO_HANDED.name, TWO_HANDED)
    assert get_embodiment("two-handed") is TWO_HANDED


def test_an_unknown_robot_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"embodiment: there is no 'librero'. Did you mean libero\?"):
        get_embodiment("librero")
