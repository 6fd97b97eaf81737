"""Look-up of robots by name in `pokevla.parts.EMBODIMENTS`."""

from __future__ import annotations

from pokevla.embodiment.description import Embodiment
from pokevla.parts import EMBODIMENTS, get_part


def get_embodiment(name: str) -> Embodiment:
    """The description of the robot `name`.

    Raises:
        RecipeError: there is no robot with this name.
    """
    return get_part("embodiment", name, EMBODIMENTS)
