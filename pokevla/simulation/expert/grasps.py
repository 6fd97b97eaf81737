"""Where to grasp and where to release an object: rules from collision geometry, in world coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pokevla.errors import SimulationError
from pokevla.simulation.geometry import narrow_side
from pokevla.simulation.hand import FINGER_BOX, HAND_BOX, box_meets, grasp_height
from pokevla.simulation.masks import parent_instance

if TYPE_CHECKING:
    from pokevla.simulation.environment import LiberoEnvironment

GRIPPER_OPENING_M = 0.08
MIN_SLACK_M = 0.03  # with less free space between the open fingers, the hand turns to the narrow side
FINGER_M = 0.004  # what must stay free on each side of a wide object
FINGER_WIDTH_M = 0.012  # half the breadth of a finger, and a little
WAY_MARGIN_M = 0.01  # distance to objects passed on the way to the goal
MIN_GAIN_M = 0.004  # turning must gain at least this much
RIM_DEPTH_M = 0.018  # how deep the fingers reach over a bowl's rim
RIM_INSET_M = 0.004  # from the outer edge of a bowl to the middle of its wall


@dataclass(frozen=True)
class Grasp:
    """Target of the point between the fingers, yaw of the closing axis from world y in rad, and free space between the
    open fingers in m."""

    point: np.ndarray  # (3,) m
    yaw: float
    slack: float


class Shape:
    """Solid part of one object or fixture, as points that move with it."""

    def __init__(self, env: LiberoEnvironment, instance: str) -> None:
        self._data = env.sim_data
        self.geoms = env.placement.collision_geoms(instance)
        self._body = int(env.sim_model.geom_bodyid[self.geoms[0]])
        points = env.placement.points(instance)
        self._local = (points - self._data.xpos[self._body]) @ self._data.xmat[self._body].reshape(3, 3)

    @property
    def points(self) -> np.ndarray:
        """World points (N, 3) in m that span it now."""
        return self._local @ self._data.xmat[self._body].reshape(3, 3).T + self._data.xpos[self._body]


class Handled:
    """The object to move and its goal, both read from the simulation at every call."""

    def __init__(self, env: LiberoEnvironment) -> None:
        """Raises SimulationError for tasks whose goal is not to put one free object in or on another thing."""
        self._env = env
        self.name, self._region, self.place = _pick_and_place(env)
        shapes = {name: Shape(env, name) for name in env.instances if len(env.placement.collision_geoms(name))}
        self._shape = shapes.pop(self.name)
        self._place_shape = shapes[self.place]
        self._others = list(shapes.values())
        self._in_the_way = [shapes[name] for name in env.placement.movable if name not in (self.name, self.place)]
        self.geoms = self._shape.geoms

    @property
    def points(self) -> np.ndarray:
        """World points (N, 3) in m that span the object."""
        return self._shape.points

    @property
    def bottom(self) -> float:
        """Height of the object's underside in m."""
        return float(self.points[:, 2].min())

    def grasp(self) -> Grasp:
        """Top-down grasp for the object's current pose: the first candidate at which the hand touches no neighbour."""
        candidates = self.candidates()
        tall = [shape.points for shape in self._others]
        return next((grasp for grasp in candidates if hand_is_clear(grasp, tall)), candidates[0])

    def candidates(self) -> list[Grasp]:
        """Grasps in order of preference.

        Tall objects are held 3.5 cm below their top, but never below 40 % of their height; flat ones at half height, at
        least 1 cm above the ground; wide hollow ones (bowls) by the rim.
        """
        points = self.points
        side, direction, centre = narrow_side(points[:, :2])
        if side > GRIPPER_OPENING_M - 0.01:
            return _rim_grasps(points, float(points[:, 2].max()))
        z = grasp_height(points)
        # Turning costs time and changes the wrist view, so turn only if there is little space.
        width = float(np.ptp(points[:, 1]))
        roomy = GRIPPER_OPENING_M - width >= MIN_SLACK_M or width - side < MIN_GAIN_M
        yaws = [(0.0, width), (_least_turn(direction - math.pi / 2), side)]
        if not roomy:
            yaws.reverse()
        grasps = []
        for yaw, across in yaws:
            if GRIPPER_OPENING_M - across < 2 * FINGER_M:
                continue
            # A long object can be held at several points along the fingers' broad side.
            along = np.array([math.cos(yaw), math.sin(yaw)])
            spare = max(0.0, float(np.ptp(points[:, :2] @ along)) / 2 - FINGER_WIDTH_M)
            for slide in (0.0, -spare, spare):
                middle = centre + slide * along
                grasps.append(Grasp(np.array([*middle, z]), yaw, GRIPPER_OPENING_M - across))
        return grasps

    def hold_offset(self, hand: np.ndarray) -> np.ndarray:
        """(2,) m from the hand to the middle of the object, to be compensated when placing."""
        return self.points[:, :2].mean(axis=0) - hand[:2]

    def height_on_the_way(self, goal: np.ndarray) -> float:
        """Top in m of the highest movable object on the straight path to `goal` (2,)."""
        points = self.points[:, :2]
        way = np.linspace(points.mean(axis=0), goal, 20)
        half = (points.max(axis=0) - points.min(axis=0)) / 2 + WAY_MARGIN_M
        tops = [-np.inf]
        for shape in self._in_the_way:
            low, high = shape.points.min(axis=0), shape.points.max(axis=0)
            if ((way > low[:2] - half) & (way < high[:2] + half)).all(axis=1).any():
                tops.append(high[2])
        return float(max(tops))

    def goal(self) -> tuple[np.ndarray, float]:
        """Centre (2,) of the goal in m, and height in m that the object's underside must have above it."""
        points = self._place_shape.points
        if self._region is None:
            centre = (points[:, :2].min(axis=0) + points[:, :2].max(axis=0)) / 2
        else:
            centre = np.array(self._env.sim_data.site(self._region).xpos[:2])
        return centre, float(points[:, 2].max())


def hand_is_clear(grasp: Grasp, others: Sequence[np.ndarray]) -> bool:
    """Whether hand and open fingers at `grasp` stay off the given objects, (N, 3) world points each."""
    return not any(
        box_meets(box, grasp.point, grasp.yaw, points) for points in others for box in (HAND_BOX, FINGER_BOX)
    )


def _rim_grasps(points: np.ndarray, top: float) -> list[Grasp]:
    """Hold the wall of a bowl on either side along world y, first the one nearer to the robot's middle line."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    centre = (low + high) / 2
    radius = float(high[1] - low[1]) / 2 - RIM_INSET_M
    first = -1.0 if centre[1] > 0 else 1.0
    return [
        Grasp(np.array([centre[0], centre[1] + side * radius, top - RIM_DEPTH_M]), 0.0, GRIPPER_OPENING_M)
        for side in (first, -first)
    ]


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
