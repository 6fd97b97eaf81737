"""A robot that shares no width with LIBERO's."""

from pokevla.embodiment.description import Embodiment, FieldSpec, Gripper

TWO_HANDED = Embodiment(
    name="two-handed",
    version=1,
    views=("front", "left", "right"),
    proprio=(FieldSpec("left_joints", 5, "rad"), FieldSpec("right_joints", 5, "rad")),
    action=(
        FieldSpec("left_hand", 3, "m"),
        FieldSpec("left_gripper", 1, "1"),
        FieldSpec("right_hand", 3, "m"),
        FieldSpec("right_gripper", 1, "0.1 m"),
        FieldSpec("mode", 1, "1"),
    ),
    grippers=(Gripper(column=3, open=1.0, closed=0.0), Gripper(column=7, open=-1.0, closed=1.0)),
    action_mask=(True, True, True, False, True, True, True, False, False),
    control_mode="absolute_end_effector",
    control_rate_hz=10.0,
)
"""Ten proprio columns and nine action columns; the last action is predicted unscaled."""
