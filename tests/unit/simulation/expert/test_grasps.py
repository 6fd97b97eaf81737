"""Rules about the hand: where it holds a thing, and what it would touch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pokevla.simulation.expert.grasps import Grasp, hand_is_clear
from pokevla.simulation.hand import HAND_BOX, box_meets, grasp_height


def box(centre: tuple[float, float], side: float, top: float) -> np.ndarray:
    """Corners (8, 3) of an upright box on the ground."""
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (0, 1)])
    return signs * [side / 2, side / 2, top] + [*centre, 0.0]


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        pytest.param(0.014, 0.010, id="very flat: a centimetre above the ground"),
        pytest.param(0.030, 0.015, id="flat: half height"),
        pytest.param(0.050, 0.020, id="low: not below 40 per cent"),
        pytest.param(0.130, 0.095, id="tall: 3.5 cm below the top"),
    ],
)
def test_grasp_height(top: float, expected: float) -> None:
    assert grasp_height(box((0.0, 0.0), 0.04, top) + np.array([0.0, 0.0, 0.5])) == pytest.approx(0.5 + expected)


@pytest.mark.parametrize(
    ("centre", "top", "yaw", "meets"),
    [
        pytest.param((0.0, 0.08), 0.20, 0.0, True, id="beside it, where the hand is broad"),
        pytest.param((0.08, 0.0), 0.20, 0.0, False, id="before it, where the hand is narrow"),
        pytest.param((0.08, 0.0), 0.20, math.pi / 2, True, id="before it, hand turned"),
        pytest.param((0.0, 0.08), 0.20, math.pi / 2, False, id="beside it, hand turned"),
        pytest.param((0.0, 0.08), 0.12, 0.0, False, id="beside it, but lower than the hand's underside"),
        pytest.param((0.0, 0.13), 0.20, 0.0, False, id="beyond the hand"),
    ],
)
def test_what_the_hand_meets(centre: tuple[float, float], top: float, yaw: float, meets: bool) -> None:
    point = np.array([0.0, 0.0, 0.095])
    other = box(centre, 0.04, top)
    assert box_meets(HAND_BOX, point, yaw, other) is meets
    assert hand_is_clear(Grasp(point, yaw, 0.03), [other]) is not meets
