"""Scripted closed-loop expert for pick-and-place, a function of the current state only.

Small policies learn from it, so its behaviour is easy to imitate: move over the object, straight down at one speed,
close, straight up, over the goal, open. The phase follows from what is visible (heights, offsets, finger opening,
contacts), not from a clock; after a slip or a push it acts on the new state, which is also how it retries.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pokevla.simulation.expert.grasps import FINGER_M, Handled
from pokevla.simulation.geometry import rotation_error

if TYPE_CHECKING:
    from pokevla.simulation.environment import LiberoEnvironment

GAIN = 1.6  # of the position error, in units of the controller's 5 cm range
POSITION_RANGE_M, ROTATION_RANGE_RAD = 0.05, 0.5  # osc_pose.json: displacement for an action of 1
DESCENT_SPEED = 0.7  # action units; about 1.1 cm per step
HOVER_M = 0.07  # fingertip height above the grasp point while aligning
ALIGN_M = 0.012  # allowed xy error before descending, if the fingers have room for it
KEEP_MORE_M = 0.008  # allowed in addition while descending; beyond it the hand moves up again
CLOSE_HEIGHT_M = 0.010  # closing begins this far above the grasp point; the hand coasts the rest
EMPTY_M = 0.003  # fingers this close together hold nothing
FINGERS_REST_M_S = 0.04  # they close at about 0.1
FUNNEL_M = 0.025  # xy error beyond the allowed one over which the height rises to HOVER_M
PRESS_M = 0.012  # aims this far below the grasp point, so as not to creep down to it
SWEEP_M = 0.04  # this far below the funnel it goes up only
LIFT_M = 0.05  # this far below the carrying height it goes up only
REACHED_M = 0.020  # xy error at which the goal counts as reached
LET_GO_M = 0.060  # and while the fingers are on their way open
CLINGS_M = 0.03  # hand this near to the grasp point: the object is still between the fingers
RELEASE_MOVE_M = 0.01  # vertical offset while the fingers open
CLEAR_M = 0.03  # underside above the rim while carrying
YAW_TOLERANCE_RAD = 0.12
OPEN, CLOSED = -1.0, 1.0


class ScriptedExpert:
    """Computes the action for the current state of one environment."""

    def __init__(self, env: LiberoEnvironment) -> None:
        """Raises SimulationError for tasks that are not single pick-and-place."""
        self._env = env
        self._handled = Handled(env)
        robot = env.libero.robots[0]
        geoms = robot.gripper.important_geoms
        self._pads = [
            np.array([env.sim_model.geom(name).id for name in geoms[finger]])
            for finger in ("left_finger", "right_finger")
        ]
        # LIBERO starts with the hand pointing down, its closing axis (column 0) along world y.
        self._level = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
        self.phase = ""

    def act(self) -> np.ndarray:
        """Noise-free action (7,) in [-1, 1] for the current state. Sets `phase` to what it is doing."""
        self._env.refresh()
        hand, _, _ = self._env.robot_pose()
        goal, rim = self._handled.goal()
        if self._is_open() and self._env.success():
            self.phase = "done"  # move up and away; do not pick it up again from the basket
            return self._action(np.array([0.0, 0.0, RELEASE_MOVE_M]), None, OPEN)
        middle = self._handled.points[:, :2].mean(axis=0)
        lifted = self._handled.bottom > rim - 0.02
        # Once it has started to release it does not grasp again, even if the object tips over as it drops.
        reached = REACHED_M if self._is_squeezed() or self._is_open() else LET_GO_M
        if np.linalg.norm(middle - goal) < reached and (lifted or not self._holds()):
            self.phase = "release"
            # Lower the object while opening, until the fingers are free of it, then rise. Never zero: see "close".
            clings = hand[2] - self._handled.grasp().point[2] < CLINGS_M and hand[2] > rim + CLINGS_M
            return self._action(np.array([0.0, 0.0, -RELEASE_MOVE_M if clings else RELEASE_MOVE_M]), None, OPEN)
        if self._is_squeezed() and self._gap() > EMPTY_M and (self._holds() or self._fingers_rest()):
            return self._carry(hand, goal, rim)
        return self._fetch(hand)

    @property
    def is_closing(self) -> bool:
        """Whether the last action was part of closing the fingers (where noise would spoil the grasp)."""
        return self.phase == "close"

    def _carry(self, hand: np.ndarray, goal: np.ndarray, rim: float) -> np.ndarray:
        clear = max(rim, self._handled.height_on_the_way(goal)) + CLEAR_M
        height = hand[2] + clear - self._handled.bottom
        to_goal = goal - hand[:2] - self._handled.hold_offset(hand)
        rise = height - hand[2]
        free = float(np.clip((LIFT_M - rise) / (LIFT_M - CLEAR_M * 0.7), 0.0, 1.0))
        self.phase = "move" if free > 0.5 else "lift"
        return self._action(np.array([*(free * to_goal), rise]), None, CLOSED)

    def _fetch(self, hand: np.ndarray) -> np.ndarray:
        grasp = self._handled.grasp()
        offset = grasp.point - hand
        sideways, above = float(np.linalg.norm(offset[:2])), -float(offset[2])
        turned = abs(self._yaw_error(grasp.yaw)) < YAW_TOLERANCE_RAD
        align = float(np.clip(grasp.slack / 2 - FINGER_M, FINGER_M, ALIGN_M))
        keep = align + KEEP_MORE_M
        # Once the fingers are closing, small displacements of the hand are allowed.
        reached = above < CLOSE_HEIGHT_M * (1.0 if self._is_open() else 2.0)
        if reached and sideways < keep and turned and self._gap() > EMPTY_M:
            self.phase = "close"
            # Keep servoing: an action of exactly zero would be dropped as a no-op, and the policy would never learn
            # to wait for the fingers.
            return self._action(offset, None, CLOSED)
        if not self._is_open() and above < HOVER_M / 2:
            self.phase = "back off"
            return self._action(np.array([0.0, 0.0, POSITION_RANGE_M]), None, OPEN)
        # A funnel: the larger the xy error, the higher. Smooth on purpose, because a policy that sees with an accuracy
        # of a centimetre cannot tell on which side of a threshold it is.
        aside = float(np.clip((sideways - align) / FUNNEL_M, 0.0, 1.0)) if turned else 1.0
        rise = HOVER_M * aside - above - PRESS_M * (1.0 - aside)
        self.phase = "hover" if aside > 0.5 else "descend"
        # Low beside the object: first up, then across, so that the fingers do not knock it over.
        across = offset[:2] * float(np.clip((SWEEP_M - rise) / (SWEEP_M - ALIGN_M), 0.0, 1.0))
        if above < HOVER_M * 1.5:
            rise = max(rise, -DESCENT_SPEED * POSITION_RANGE_M / GAIN)
        return self._action(np.array([*across, rise]), grasp.yaw, OPEN)

    def _action(self, offset: np.ndarray, yaw: float | None, gripper: float) -> np.ndarray:
        """Action towards `offset` (3,) m from here; `yaw` None keeps the orientation as it is."""
        action = np.zeros(7)
        # Scale all axes alike, so that the direction of motion points to the goal even from far away. Clipped per axis,
        # most actions would be (1, -1, -1) wherever the goal is, and a policy would not learn to look for it.
        velocity = GAIN * offset / POSITION_RANGE_M
        action[:3] = velocity / max(1.0, float(np.abs(velocity).max()))
        if yaw is not None:
            error = rotation_error(self._desired_rotation(yaw), self._current_rotation())
            action[3:6] = np.clip(error / ROTATION_RANGE_RAD, -1.0, 1.0)
        action[6] = gripper
        return action

    def _desired_rotation(self, yaw: float) -> np.ndarray:
        cosine, sine = math.cos(yaw), math.sin(yaw)
        return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]]) @ self._level

    def _current_rotation(self) -> np.ndarray:
        site = self._env.libero.robots[0].eef_site_id
        return np.array(self._env.sim_data.site_xmat[site].reshape(3, 3))

    def _yaw_error(self, yaw: float) -> float:
        return float(rotation_error(self._desired_rotation(yaw), self._current_rotation())[2])

    def _gap(self) -> float:
        """Distance between the fingers in m, 0.08 when open."""
        _, _, fingers = self._env.robot_pose()
        return float(fingers[0] - fingers[1])

    def _is_open(self) -> bool:
        return self._gap() > 0.07

    def _is_squeezed(self) -> bool:
        """Whether the gripper's set point is fully closed (eight closing steps from open)."""
        return bool(abs(self._env.libero.robots[0].gripper.current_action[0]) > 0.99) and not self._is_open()

    def _fingers_rest(self) -> bool:
        """Whether the fingers have stopped; with a gap between them this means that they hold something. Contacts alone
        would flicker on the thin wall of a bowl."""
        return bool(np.abs(self._env.finger_speeds()).max() < FINGERS_REST_M_S)

    def _holds(self) -> bool:
        """Whether both fingers touch the object."""
        pairs = np.asarray(self._env.sim_data.contact.geom)
        touches = np.isin(pairs, self._handled.geoms).any(axis=1)
        return all(bool((touches & np.isin(pairs, pad).any(axis=1)).any()) for pad in self._pads)
