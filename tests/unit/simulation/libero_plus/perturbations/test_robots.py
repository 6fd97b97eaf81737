"""The 500 initial poses against the numbers in the official code."""

from __future__ import annotations

import ast
import re

import numpy as np
import pytest

from pokevla.simulation.libero_plus.perturbations.robots import NOMINAL, initial_joints
from tests.libero_plus import official_checkout


# Classes MountedPanda1, 101 and 500 of mounted_panda.py.
@pytest.mark.parametrize(
    ("number", "joints"),
    [
        (1, [0.02097405, -0.16687568, 0.02734903, -2.38028663, -0.00988726, 2.21686563, 0.85208136]),
        (101, [-0.03632438, -0.08814102, -0.04894533, -2.54247241, -0.10817123, 2.26886425, 0.69642025]),
        (500, [-0.11827633, -0.04802337, 0.42756544, -2.2644154, -0.01062499, 2.18628575, 0.7065925]),
    ],
)
def test_poses_equal_the_official_ones_to_the_last_digit(number: int, joints: list[float]) -> None:
    np.testing.assert_array_equal(initial_joints()[number - 1], joints)


def test_the_distance_from_the_nominal_pose_grows_by_a_tenth_of_a_radian_each_hundred() -> None:
    distances = np.linalg.norm(initial_joints() - NOMINAL, axis=1)
    np.testing.assert_allclose(distances, np.repeat([0.1, 0.2, 0.3, 0.4, 0.5], 100), atol=1e-7)


@pytest.mark.parametrize("module", ["mounted_panda", "on_the_ground_panda"])
def test_all_official_classes_have_these_poses(module: str) -> None:
    file = official_checkout() / f"libero/libero/envs/robots/{module}.py"
    if not file.is_file():
        pytest.skip("the checkout has no code")
    found = re.findall(
        r"^class \w+Panda(\d+)\(\w+Panda\):.*?return np\.array\((\[.*?\])\)",
        file.read_text(encoding="utf-8"),
        re.M | re.S,
    )
    assert len(found) == 500
    for number, text in found:
        np.testing.assert_array_equal(initial_joints()[int(number) - 1], ast.literal_eval(text))
