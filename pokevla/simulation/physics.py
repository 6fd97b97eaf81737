"""One 20 Hz control step of LIBERO's Panda, bit-identical to the stock `env.step`, at a fraction of its cost.

The stock step runs, for each of its 25 substeps, `mj_forward` twice (environment, controller), then `mj_step`,
which is a third forward pass, and updates every robosuite observable. Position and velocity stages do not
depend on the controls, so one pass gives the same numbers as three; the acceleration stage warm-starts its
constraint solver from its own last answer, so it must be run three times to keep every bit. The observables
are not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pokevla.simulation.simulator import load_simulator


class PhysicsStepper:
    """Steps one robosuite environment with a single Panda and the OSC_POSE controller."""

    def __init__(self, env: Any) -> None:
        """`env` is the inner robosuite environment of LIBERO. Its controller is used unchanged."""
        self._mujoco, _ = load_simulator()
        self._env = env
        self._model = env.sim.model._model
        self._data = env.sim.data._data
        robot = env.robots[0]
        self._robot = robot
        self._controller = robot.controller
        self._gripper = robot.gripper
        self._num_substeps = int(env.control_timestep / env.model_timestep)
        self._site = env.sim.model.site_name2id(self._controller.eef_name)
        self._qpos_index = np.asarray(self._controller.qpos_index)
        self._qvel_index = np.asarray(self._controller.qvel_index)
        self._arm_actuators = np.asarray(robot._ref_joint_actuator_indexes)
        self._torque_low, self._torque_high = robot.torque_limits
        self._gripper_actuators = np.asarray(robot._ref_joint_gripper_actuator_indexes)
        grip_range = self._model.actuator_ctrlrange[self._gripper_actuators]
        self._grip_bias = 0.5 * (grip_range[:, 1] + grip_range[:, 0])
        self._grip_weight = 0.5 * (grip_range[:, 1] - grip_range[:, 0])
        num_velocities = self._model.nv
        self._jac_pos = np.zeros((3, num_velocities))
        self._jac_ori = np.zeros((3, num_velocities))
        self._mass = np.zeros((num_velocities, num_velocities))
        self._save()

    def step(self, action: np.ndarray) -> None:
        """Execute one LIBERO action (7,): position 3, rotation 3, gripper 1, all in [-1, 1]."""
        mujoco, model, data = self._mujoco, self._model, self._data
        controller, gripper = self._controller, self._gripper
        # Not skipping sensors: force sensors are read nowhere, so the acceleration stage may leave them out.
        velocity_stage = int(mujoco.mjtStage.mjSTAGE_VEL)
        for substep in range(self._num_substeps):
            mujoco.mj_step1(model, data)
            mujoco.mj_forwardSkip(model, data, velocity_stage, 1)  # stock: env.step's sim.forward()
            # False only before the first step after a reset: there the stock controller still works with
            # what it saw at creation.
            if controller.new_update:
                mujoco.mj_forwardSkip(model, data, velocity_stage, 1)  # stock: controller.update's sim.forward()
                self._update_controller()
            if substep == 0:
                controller.set_goal(action[:6])
            torques = controller.run_controller()
            data.ctrl[self._arm_actuators] = np.clip(torques, self._torque_low, self._torque_high)
            grip = gripper.format_action(action[6:])
            data.ctrl[self._gripper_actuators] = self._grip_bias + self._grip_weight * grip
            mujoco.mj_step2(model, data)
        self._env._post_process()

    def restore(self, state: np.ndarray | None = None) -> None:
        """Put simulation, controller and gripper back to the state right after creation, bit for bit.

        `state`, an integration state of MuJoCo, replaces the simulation's. Controller and gripper do not depend on it.
        """
        saved = self._saved_state if state is None else state
        self._mujoco.mj_setState(self._model, self._data, saved, self._state_spec)
        self._mujoco.mj_forward(self._model, self._data)
        # The forward pass fills the derived quantities but moves the solver's warm start: put that back too.
        self._mujoco.mj_setState(self._model, self._data, saved, self._state_spec)
        for name, value in self._saved_controller.items():
            setattr(self._controller, name, _copied(value))
        self._gripper.current_action = _copied(self._saved_grip)

    def resume(self, past_actions: Sequence[np.ndarray] = ()) -> None:
        """Make the controller continue from the current state, which was set from outside.

        Beyond the state it stores its last goal pose (set to the current one) and the gripper's set point, which
        follows from `past_actions` (each (7,), the latest last).
        """
        self._controller.update(force=True)
        self._controller.reset_goal()
        for action in past_actions:
            for _ in range(self._num_substeps):
                self._gripper.format_action(action[6:])

    def _save(self) -> None:
        # mjSTATE_INTEGRATION: all that a step depends on, the solver's warm start and controls included.
        self._state_spec = int(self._mujoco.mjtState.mjSTATE_INTEGRATION)
        self._saved_state = np.empty(self._mujoco.mj_stateSize(self._model, self._state_spec))
        self._mujoco.mj_getState(self._model, self._data, self._saved_state, self._state_spec)
        self._saved_controller = {name: _copied(value) for name, value in vars(self._controller).items()}
        self._saved_grip = _copied(self._gripper.current_action)

    def _update_controller(self) -> None:
        """robosuite 1.4 `Controller.update` (controllers/base_controller.py) with the ids looked up once."""
        mujoco, model, data, controller = self._mujoco, self._model, self._data, self._controller
        columns = self._qvel_index
        controller.ee_pos = np.array(data.site_xpos[self._site])
        controller.ee_ori_mat = np.array(data.site_xmat[self._site].reshape(3, 3))
        mujoco.mj_jacSite(model, data, self._jac_pos, self._jac_ori, self._site)
        controller.ee_pos_vel = np.dot(self._jac_pos, data.qvel)
        controller.ee_ori_vel = np.dot(self._jac_ori, data.qvel)
        controller.joint_pos = np.array(data.qpos[self._qpos_index])
        controller.joint_vel = np.array(data.qvel[columns])
        # The memory layout these expressions leave behind decides the order of sums in BLAS: keep them as stock.
        controller.J_pos = np.array(self._jac_pos[:, columns])
        controller.J_ori = np.array(self._jac_ori[:, columns])
        controller.J_full = np.array(np.vstack([controller.J_pos, controller.J_ori]))
        mujoco.mj_fullM(model, self._mass, data.qM)
        controller.mass_matrix = self._mass[columns, :][:, columns]
        controller.new_update = False


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value
