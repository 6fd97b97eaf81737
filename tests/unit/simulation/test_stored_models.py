"""Poses of fixtures are read from the XML stored beside a demonstration."""

from __future__ import annotations

import numpy as np
import pytest

from pokevla.errors import DataError
from pokevla.simulation.stored_models import stored_poses

XML = """
<mujoco model="x">
  <asset><mesh name="m" file="/somebody/elses/machine/m.obj"/></asset>
  <worldbody>
    <body name="flat_stove_1_main" pos="-0.41 0.2 0.9" quat="0 0 0 1"><body name="knob" pos="1 1 1"/></body>
    <body name="table"/>
  </worldbody>
</mujoco>
"""


def test_bodies_below_the_world_are_read_with_mujocos_defaults() -> None:
    poses = stored_poses(XML)
    assert list(poses) == ["flat_stove_1_main", "table"]
    np.testing.assert_array_equal(poses["flat_stove_1_main"].position, [-0.41, 0.2, 0.9])
    np.testing.assert_array_equal(poses["flat_stove_1_main"].quaternion, [0, 0, 0, 1])
    np.testing.assert_array_equal(poses["table"].position, np.zeros(3))
    np.testing.assert_array_equal(poses["table"].quaternion, [1, 0, 0, 0])


@pytest.mark.parametrize(("text", "words"), [("", "is not XML"), ("<mujoco/>", "no worldbody")])
def test_a_model_that_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        stored_poses(text)
