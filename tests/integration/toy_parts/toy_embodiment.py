"""An embodiment: two arms with a gripper each, seen by three cameras."""

from __future__ import annotations

from pokevla.embodiment.description import Embodiment, FieldSpec, Gripper
from pokevla.parts import EMBODIMENTS

EMBODIMENTS["two-arms"] = Embodiment(
    name="two-arms",
    version=1,
    views=("front", "left", "right"),
    proprio=(FieldSpec("joints", 10, "rad"), FieldSpec("grippers", 2, "m")),
    action=(FieldSpec("joints", 7, "rad"), FieldSpec("grippers", 2, "1")),
    grippers=(Gripper(column=7, open=1.0, closed=0.0), Gripper(column=8, open=0.0, closed=1.0)),
    action_mask=(True,) * 7 + (False,) * 2,
    control_mode="delta_joint",
    control_rate_hz=10.0,
)
