"""Actions of any robot are drawn on a scale that shows them."""

from __future__ import annotations

import dataclasses

import numpy as np

from pokevla.embodiment.description import Embodiment, FieldSpec, Gripper
from pokevla.embodiment.libero import LIBERO
from pokevla.evaluation.drawing.actions import COLOURS, action_panels, draw_actions
from pokevla.evaluation.drawing.plots import ON_DARK

JOINTS = Embodiment(
    name="arm", version=1, views=("front",), proprio=(FieldSpec("joints", 2, "rad"),),
    action=(FieldSpec("gripper", 1, "1"), FieldSpec("joints", 2, "rad")), grippers=(Gripper(0, open=1.0, closed=0.0),),
    action_mask=(False, True, True), control_mode="absolute_joint", control_rate_hz=50.0,
)  # fmt: skip


def test_differences_are_drawn_around_zero_on_the_scale_of_the_training_data() -> None:
    low, high = np.array([-0.2, -0.7, 0, -0.1, -0.1, -0.1, 0.0]), np.array([0.3, 0.5, 0.6, 0.1, 0.3, 0.1, 1.0])
    panels = action_panels(LIBERO, (low, high))
    assert [(panel.title, panel.low, panel.high) for panel in panels] == [
        ("position", -0.7, 0.7), ("rotation", -0.3, 0.3), ("gripper", -1.0, 1.0),
    ]  # fmt: skip
    assert [panel.ends for panel in panels] == [("-0.7", "0.7"), ("-0.3", "0.3"), ("open", "closed")]
    assert [panel.components for panel in panels] == [["x", "y", "z"], ["x", "y", "z"], []]
    assert [(panel.low, panel.high) for panel in action_panels(LIBERO)] == [(-1.0, 1.0)] * 3


def test_positions_are_drawn_where_they_are_and_grippers_between_their_commands() -> None:
    gripper, joints = action_panels(JOINTS, (np.array([0, 0.5, 1.0]), np.array([1, 1.5, 2.0])))
    assert (gripper.low, gripper.high, gripper.ends) == (0.0, 1.0, ("closed", "open"))
    assert (joints.low, joints.high, joints.middle, joints.components) == (0.5, 2.0, 1.25, ["1", "2"])
    constant = action_panels(JOINTS, (np.zeros(3), np.zeros(3)))[1]
    assert constant.low < 0 < constant.high


def test_two_grippers_with_other_commands_share_a_plain_scale() -> None:
    two = dataclasses.replace(
        JOINTS,
        action=(FieldSpec("grippers", 2, "1"), FieldSpec("joint", 1, "rad")),
        grippers=(Gripper(0, open=1.0, closed=0.0), Gripper(1, open=-1.0, closed=1.0)),
        action_mask=(False, False, True),
    )
    assert [panel.ends for panel in action_panels(two)] == [("-1", "1")] * 2


def test_a_component_is_drawn_in_its_colour_at_its_height_and_cut_at_the_edge() -> None:
    panel = action_panels(LIBERO)[0]

    def rows(value: float) -> np.ndarray:
        action = np.array([value, 0, 0, 0, 0, 0, 0])
        plot = draw_actions(panel, (60, 50), [(0.0, action), (1.0, action)], (0.0, 1.0), ON_DARK)
        return np.argwhere((np.abs(np.asarray(plot).astype(int) - COLOURS[0]) < 30).all(axis=-1))[:, 0]

    assert rows(0.9).max() < 10
    assert rows(-0.9).min() > 40
    assert rows(5.0).size > 0
    assert rows(5.0).max() < 6
