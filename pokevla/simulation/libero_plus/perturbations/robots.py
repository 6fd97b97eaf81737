"""The 500 initial joint positions of LIBERO-Plus, and robosuite robots that start in them."""

from __future__ import annotations

from functools import cache
from types import new_class

import numpy as np

from pokevla.simulation.libero_plus.names import NUM_ROBOT_STATES

NOMINAL = (0.0, -1.61037389e-01, 0.0, -2.44459747e00, 0.0, 2.22675220e00, np.pi / 4)
"""LIBERO's initial joints in rad (libero/libero/envs/robots/mounted_panda.py)."""
STATES_PER_LEVEL = 100
_SEED = 42
_DIGITS = 8


@cache
def initial_joints() -> np.ndarray:
    """(500, 7) joint positions in rad; row k - 1 belongs to `_initstate_k`.

    Random directions, 0.1 rad from the nominal joints for k = 1 to 100, 0.2 rad for 101 to 200, and so on. The official
    numbers are in sylvestf/LIBERO-plus, libero/libero/envs/robots/mounted_panda.py, one class each. That this rule and
    seed give all of them, to the last printed digit, was found by comparison.
    """
    directions = np.random.RandomState(_SEED).randn(NUM_ROBOT_STATES, len(NOMINAL))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    distances = 0.1 * (np.arange(NUM_ROBOT_STATES) // STATES_PER_LEVEL + 1)
    joints = np.round(np.array(NOMINAL) + distances[:, np.newaxis] * directions, _DIGITS)
    joints.setflags(write=False)
    return joints


def register_robot(number: int) -> str:
    """Make robosuite know the robots of `_initstate_{number}`; returns the name for LIBERO's argument `robots`.

    LIBERO puts `Mounted` or `OnTheGround` before it, depending on the scene.
    """
    from libero.libero.envs.robots.mounted_panda import MountedPanda
    from libero.libero.envs.robots.on_the_ground_panda import OnTheGroundPanda
    from robosuite.models.robots.robot_model import REGISTERED_ROBOTS
    from robosuite.robots import ROBOT_CLASS_MAPPING

    joints = initial_joints()[number - 1].copy()
    for original in (MountedPanda, OnTheGroundPanda):
        name = f"{original.__name__}{number}"
        if name not in REGISTERED_ROBOTS:
            # Creating a subclass registers it with robosuite, under its name.
            new_class(
                name, (original,), exec_body=lambda body: body.update(init_qpos=property(lambda _: joints.copy()))
            )
        ROBOT_CLASS_MAPPING.setdefault(name, ROBOT_CLASS_MAPPING[original.__name__])
    return f"Panda{number}"
