"""A policy is tried in an environment of its own robot only."""

from __future__ import annotations

import numpy as np
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import RecipeError
from pokevla.evaluation.policies import refuse_other_robots
from pokevla.policy.replay import ReplayPolicy
from tests.unit.embodiment.robots import TWO_HANDED


def test_a_policy_of_another_robot_is_refused_with_what_differs() -> None:
    fitting = ReplayPolicy(np.zeros((1, 7)), LIBERO, 8)
    refuse_other_robots({("libero", "libero_goal"): fitting}, "libero")
    other = ReplayPolicy(np.zeros((1, 9)), TWO_HANDED, 8)
    with pytest.raises(RecipeError) as caught:
        refuse_other_robots({("libero", "libero_goal"): fitting, ("hands", "libero_goal"): other}, "libero")
    assert str(caught.value).startswith(
        "policies: hands drives the embodiment two-handed, trials.environment simulates libero: "
        "views front, left, right against base, wrist; proprio width 10 against 8; action width 9 against 7."
    )
