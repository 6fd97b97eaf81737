"""Where to take hold of an object and where to let it go: rules from collision geometry, in world coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pokevla.errors import SimulationError
from pokevla.simulation.geometry import body_points, narrow_side
from pokevla.simulation.masks import parent_instance

if TYPE_CHECKING:
    from pokevla.simulation.environment import LiberoEnvironment

GRIPPER_OPENING_M = 0.08
MIN_SLACK_M = 0.04  # below this much free way between the open fingers, the hand turns to the narrow side
RIM_DEPTH_M = 0.018  # how deep the fingers reach over a bowl's rim
RIM_INSET_M = 0.004  # from the outer edge of a bowl to the middle of its wall


@dataclass(frozen=True)
class Grasp:
    """Where the point between the fingers goes, and the yaw of the closing axis from world y, rad."""

    point: np.ndarray  # (3,) m
    yaw: float


class Handled:
    """The object to move and the place to put it, both read from the simulation at every call."""

    def __init__(self, env: LiberoEnvironment) -> None:
        """Raises SimulationError for tasks whose goal is not to put one free object in or on another thing."""
        self._env = env
        self.name, self._region, self.place = _pick_and_place(env)
        self.geoms = env.placement.collision_geoms(self.name)
        self._body = int(env.sim_model.body(env.libero.objects_dict[self.name].root_body).id)
        self._local = self._to_local(env.placement.points(self.name))
        self._place_geoms = env.placement.collision_geoms(self.place)

    @property
    def points(self) -> np.ndarray:
        """World points (N, 3) in m that span the object."""
        data = self._env.sim_data
        return self._local @ data.xmat[self._body].reshape(3, 3).T + data.xpos[self._body]

    def grasp(self) -> Grasp:
        """A top-down grasp for the object as it lies.

        Tall things are held 3.5 cm below their top, but never below 40 % of their height; flat ones at half
        height, at least 1 cm above their ground; wide hollow ones (bowls) by the rim.
        """
        points = self.points
        bottom, top = float(points[:, 2].min()), float(points[:, 2].max())
        height = top - bottom
        side, direction, centre = narrow_side(points[:, :2])
        if side > GRIPPER_OPENING_M - 0.01:
            return self._rim_grasp(points, top)
        if height < 0.04:
            z = max(bottom + height / 2, bottom + 0.01)
        else:
            z = max(top - 0.035, bottom + 0.4 * height)
        # Turning costs time and blurs the wrist view, so only where the way things lie leaves little slack.
        width = float(np.ptp(points[:, 1]))
        yaw = 0.0 if GRIPPER_OPENING_M - width >= MIN_SLACK_M else _least_turn(direction - math.pi / 2)
        return Grasp(np.array([centre[0], centre[1], z]), yaw)

    def hold_offset(self, hand: np.ndarray) -> np.ndarray:
        """(2,) m from the hand to the middle of the object: what the hand must make good when placing."""
        return self.points[:, :2].mean(axis=0) - hand[:2]

    def goal(self) -> tuple[np.ndarray, float]:
        """Centre (2,) of the place in m, and the height in m the object's underside must pass above it."""
        data = self._env.sim_data
        points = body_points(self._env.sim_model, data, self._place_geoms)
        if self._region is None:
            centre = (points[:, :2].min(axis=0) + points[:, :2].max(axis=0)) / 2
        else:
            centre = np.array(data.site(self._region).xpos[:2])
        return centre, float(points[:, 2].max())

    @property
    def bottom(self) -> float:
        """Height of the object's underside in m."""
        return float(self.points[:, 2].min())

    def _rim_grasp(self, points: np.ndarray, top: float) -> Grasp:
        """Hold the wall of a bowl on the side (along world y) that is nearer to the robot's middle line."""
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        centre = (low + high) / 2
        radius = float(high[1] - low[1]) / 2 - RIM_INSET_M
        side = -1.0 if centre[1] > 0 else 1.0
        return Grasp(np.array([centre[0], centre[1] + side * radius, top - RIM_DEPTH_M]), 0.0)

    def _to_local(self, points: np.ndarray) -> np.ndarray:
        data = self._env.sim_data
        return (points - data.xpos[self._body]) @ data.xmat[self._body].reshape(3, 3)


def _least_turn(angle: float) -> float:
    """A closing axis has no sign: the equivalent angle in [-pi/2, pi/2), a quarter turn always negative."""
    turned = (angle + math.pi / 2) % math.pi - math.pi / 2
    # Rounding must not decide between the two quarter turns.
    return turned - math.pi if turned > math.pi / 2 - 0.02 else turned


def _pick_and_place(env: LiberoEnvironment) -> tuple[str, str | None, str]:
    """(object, region or None, instance it goes to) of a single `in` or `on` goal."""
    goal = env.libero.parsed_problem["goal_state"]
    task = env.task
    refusal = SimulationError(
        f"The scripted expert cannot do {task.suite} task {task.index} ({task.instruction}).",
        "It picks one free object and puts it in or on another; use LIBERO's own demonstrations instead.",
    )
    if len(goal) != 1 or len(goal[0]) != 3 or goal[0][0].lower() not in ("in", "on"):
        raise refusal
    _, moved, place = goal[0]
    owner = parent_instance(place, env.instances)
    if moved not in env.placement.movable or owner is None:
        raise refusal
    return moved, place if place != owner else None, owner
