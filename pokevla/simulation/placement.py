"""Positions of movable objects, and other positions that are clear of neighbours and within reach."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pokevla.errors import SimulationError
from pokevla.simulation.geometry import body_points, clearance, convex_hull
from pokevla.simulation.hand import HAND_BOX, box_meets, grasp_height
from pokevla.simulation.suites import TaskInfo

MARGIN_M = 0.03  # gap kept to every neighbour: a finger is 2 cm thick, and the arm is not exact
MAX_DRAWS = 500
# Area in which the Panda's hand, pointing down, reaches the ground or table well, relative to the robot's base.
REACH_LOW_M = np.array([0.36, -0.32])
REACH_HIGH_M = np.array([0.80, 0.36])


class Scene(Protocol):
    """Interface of `pokevla.simulation.environment.LiberoEnvironment` that placement needs."""

    instances: list[str]
    target_instances: list[str]
    geom_labels: np.ndarray
    task: TaskInfo

    @property
    def libero(self) -> Any: ...

    @property
    def sim_model(self) -> Any: ...

    @property
    def sim_data(self) -> Any: ...


class Placement:
    """Footprints and free joints of the movable objects of one environment."""

    def __init__(self, env: Scene) -> None:
        self._env = env
        self.movable: list[str] = [
            name for name in env.instances if name in env.libero.objects_dict and env.libero.objects_dict[name].joints
        ]

    @property
    def target(self) -> str | None:
        """The instance that the task moves; None if it moves none (turning a knob, say)."""
        return next((name for name in self._env.target_instances if name in self.movable), None)

    def collision_geoms(self, instance: str) -> np.ndarray:
        """Ids of the geoms of `instance` that take part in contacts."""
        model = self._env.sim_model
        mine = self._env.geom_labels == self._env.instances.index(instance) + 1
        solid = (np.asarray(model.geom_contype) > 0) | (np.asarray(model.geom_conaffinity) > 0)
        return np.flatnonzero(mine & solid)

    def points(self, instance: str) -> np.ndarray:
        """World points (N, 3) in m spanning the solid part of `instance`."""
        return body_points(self._env.sim_model, self._env.sim_data, self.collision_geoms(instance))

    def footprint(self, instance: str) -> np.ndarray:
        """Convex hull (M, 2) in m of `instance` seen from above."""
        return convex_hull(self.points(instance)[:, :2])

    def qpos_address(self, instance: str) -> int:
        """Index in qpos of the first of the seven numbers of the object's free joint."""
        joint = self._env.libero.objects_dict[instance].joints[-1]
        return int(self._env.libero.sim.model.get_joint_qpos_addr(joint)[0])

    def move(self, instance: str, shift_m: np.ndarray) -> None:
        """Move `instance` by (x, y) in m and recompute the poses."""
        address = self.qpos_address(instance)
        self._env.sim_data.qpos[address : address + 2] += shift_m
        self._env.libero.sim.forward()

    def shift_target(self, shift_m: tuple[float, float]) -> None:
        """Move the target by (x, y) in m. Raises SimulationError if the position is occupied or out of reach."""
        target = self._required_target()
        shift = np.asarray(shift_m, dtype=np.float64)
        reason = self.obstacle(target, shift)
        if reason is not None:
            raise SimulationError(
                f"{target} cannot be moved by ({shift[0]:.3f}, {shift[1]:.3f}) m: {reason}.",
                "Draw the shift with sample_target_shift, or make it smaller.",
            )
        self.move(target, shift)

    def sample_shift(self, rng: np.random.Generator, low_m: float, high_m: float) -> tuple[float, float]:
        """A shift (x, y) in m of the target that is clear and within reach; see LiberoEnvironment."""
        target = self._required_target()
        if not 0.0 <= low_m < high_m:
            raise SimulationError(f"Target shift range [{low_m}, {high_m}] m is empty.", "Use 0 <= low < high.")
        for _ in range(MAX_DRAWS):
            shift = rng.uniform(-high_m, high_m, size=2)
            if (np.abs(shift) < low_m).all() or self.obstacle(target, shift) is not None:
                continue
            return float(shift[0]), float(shift[1])
        raise SimulationError(
            f"No clear position for {target} within {low_m} to {high_m} m in {MAX_DRAWS} draws.",
            "Choose a wider range.",
        )

    def obstacle(self, instance: str, shift_m: np.ndarray) -> str | None:
        """Why `instance` cannot be moved by `shift_m` (2,): a neighbour or the reach; None if it can."""
        footprint = self.footprint(instance) + shift_m
        low, high = self.reach()
        if (footprint.mean(axis=0) < low).any() or (footprint.mean(axis=0) > high).any():
            return "the arm does not reach it there"
        grasp = np.array([*footprint.mean(axis=0), grasp_height(self.points(instance))])
        for other in self._env.instances:
            if other == instance or not len(self.collision_geoms(other)):
                continue
            if clearance(footprint, self.footprint(other)) < MARGIN_M:
                return f"it would stand within {MARGIN_M * 100:.0f} cm of {other}"
            if box_meets(HAND_BOX, grasp, 0.0, self.points(other)):
                return f"the hand would touch {other} when it grasps straight from above"
        return None

    def reach(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper corner (2,), (2,) in m of the area the arm works in, in world coordinates."""
        base = np.asarray(self._env.libero.robots[0].base_pos)[:2]
        return base + REACH_LOW_M, base + REACH_HIGH_M

    def _required_target(self) -> str:
        if self.target is None:
            task = self._env.task
            raise SimulationError(
                f"{task.suite} task {task.index} moves no free object, so there is no target to shift.",
                "Choose a pick-and-place task.",
            )
        return self.target
