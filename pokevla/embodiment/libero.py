"""The robot of LIBERO: a Franka Panda with a parallel gripper, in OpenVLA-OFT's conventions."""

from __future__ import annotations

from pokevla.embodiment.description import Embodiment, FieldSpec, Gripper

BASE = "base"
"""The third-person camera, `agentview` in the simulator."""
WRIST = "wrist"
"""The wrist camera, `robot0_eye_in_hand` in the simulator."""

LIBERO = Embodiment(
    name="libero",
    version=1,
    views=(BASE, WRIST),
    proprio=(
        FieldSpec("position", 3, "m"),
        FieldSpec("axis_angle", 3, "rad"),
        FieldSpec("fingers", 2, "m"),
    ),
    # robosuite's OSC_POSE controller: a command of 1 moves by 0.05 m or 0.5 rad (controllers/config/osc_pose.json).
    action=(
        FieldSpec("position", 3, "0.05 m"),
        FieldSpec("rotation", 3, "0.5 rad"),
        FieldSpec("gripper", 1, "1"),
    ),
    grippers=(Gripper(column=6, open=-1.0, closed=1.0),),
    action_mask=(True,) * 6 + (False,),
    control_mode="delta_end_effector",
    control_rate_hz=20.0,
)
