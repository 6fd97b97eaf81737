"""One LIBERO task as a simulated robot: reset, step, observe. Used alike for data and for evaluation."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pokevla.errors import SimulationError
from pokevla.simulation.benchmark import FixtureMode, Placements
from pokevla.simulation.compiling.cache import ModelCache
from pokevla.simulation.compiling.compiler import ModelCompiler
from pokevla.simulation.fixtures import FixtureDraws
from pokevla.simulation.geometry import quaternion_to_axis_angle
from pokevla.simulation.masks import geom_labels, target_instances
from pokevla.simulation.physics import PhysicsStepper
from pokevla.simulation.placement import Placement
from pokevla.simulation.rendering import Renderer, upright
from pokevla.simulation.simulator import BuiltEnvironment, build_libero_env, load_simulator
from pokevla.simulation.stored_models import BodyPose, place_body
from pokevla.simulation.suites import TaskInfo, get_task, load_init_states

# "Do nothing" with an open gripper, as openvla-oft's get_libero_dummy_action.
IDLE_ACTION = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])


@dataclass(frozen=True)
class Observation:
    """Observation at one moment.

    `proprio` (8,) float32: end effector position 3 in m, axis-angle 3 in rad, finger positions 2 in m.
    `images` (2, H, W, 3) uint8, base then wrist, right way up (LIBERO's 180 degree turn applied), or None.
    `masks` (2, H, W) uint8, 1 where target or reference objects are visible, or None.
    """

    proprio: np.ndarray
    images: np.ndarray | None = None
    masks: np.ndarray | None = None


class LiberoEnvironment:
    """A LIBERO task. An episode is a pure function of (suite, task, init state, shift, seed, fixtures, actions).

    The model is built once; `reset` restores its whole state after creation, bit for bit, including the poses of
    drawers and stoves, which are not part of the initial states. The GL context is created when the first image is
    rendered, so a process that never renders needs none.
    """

    def __init__(
        self,
        suite: str,
        task_index: int,
        *,
        image_size: int = 128,
        fast_rendering: bool = False,
        seed: int = 0,
        fixtures: FixtureMode = "fixed",
        placements: Placements = "shipped",
        model_cache: ModelCache | None = None,
    ) -> None:
        """`image_size` in pixels; `fast_rendering`: no anti-aliasing, no reflections, simplified meshes. `fixtures`:
        `per_trial` places cabinet, stove and rack anew for each initial state, as the published protocol does (initial
        state k is its trial k); `fixed` keeps their first place. `placements`: with `drawn`, initial state k is a draw
        of LIBERO's own samplers of everything, a function of (suite, task, seed, k), for any k; none is a shipped one.
        `model_cache`: compiled models on disk; MuJoCo then cannot give the model's XML (`mj_saveLastXML`).

        Raises UsageError for an unknown suite or task, EnvironmentSetupError without simulator or GL.
        """
        self.seed = seed
        self._image_size = image_size
        self._fast_rendering = fast_rendering
        self._fixtures: FixtureMode = fixtures
        self._is_drawn = placements == "drawn"
        self._mujoco, _ = load_simulator()
        self._compiler = ModelCompiler(model_cache)
        self._load(self._find_task(suite, task_index))

    def switch(self, task_index: int) -> None:
        """Become another task of the suite, in every respect as a new environment of it would be.

        What both tasks have in common is not made again: the compiled model and the renderer, if the scenes are equal,
        as in all tasks of libero_spatial and of libero_goal. Raises UsageError for an unknown task.
        """
        task = self._find_task(self.task.suite, task_index)
        self._env.close()
        self._load(task)
        if self._compiler.renderer is not None:
            self._compiler.renderer.attach(self._env.sim)

    def _load(self, task: TaskInfo) -> None:
        self.task: TaskInfo = task
        built = self._build()
        self._env = built.env
        # Before anything else moves: it captures the state after LIBERO's first reset.
        moves_fixtures = self._fixtures == "per_trial" and self.has_fixtures
        self._draws = FixtureDraws(built) if self._is_drawn or moves_fixtures else None
        self._init_states = self._load_init_states()
        self._stepper = PhysicsStepper(self._env)
        self.instances: list[str] = [model.name for model in self._env.model.mujoco_objects]
        goal = self._env.parsed_problem["goal_state"]
        self.target_instances: list[str] = target_instances(self.task.objects_of_interest, goal, self.instances)
        owners = self._env.model.geom_ids_to_instances
        self.geom_labels: np.ndarray = geom_labels(owners, self.instances, self.sim_model.ngeom)
        self.placement = Placement(self)

    def _find_task(self, suite: str, index: int) -> TaskInfo:
        return get_task(suite, index)

    def _build(self) -> BuiltEnvironment:
        return build_libero_env(self.task, self.seed, self._compiler.compile)

    def _load_init_states(self) -> np.ndarray:
        return load_init_states(self.task)

    def reset(
        self, init_state_index: int, *, target_shift: tuple[float, float] | None = None, settle_steps: int = 10
    ) -> None:
        """Begin an episode from a shipped initial state, then let objects settle for `settle_steps` idle steps.

        `target_shift` (x, y) in m moves the task's first target object before settling. Raises SimulationError
        if the initial state does not exist or the shifted position is not clear.
        """
        if init_state_index < 0 or (not self._is_drawn and init_state_index >= self.task.num_init_states):
            raise SimulationError(
                f"{self.task.suite} task {self.task.index} has no initial state {init_state_index}.",
                f"Valid indices are 0 to {self.task.num_init_states - 1}.",
            )
        self.restore_state(init_state_index)
        if target_shift is not None:
            self.placement.shift_target(target_shift)
        for _ in range(settle_steps):
            self._advance(IDLE_ACTION)

    def restore_state(self, init_state_index: int) -> None:
        """Set an initial state, shipped or drawn, without settling."""
        if self._draws is None:
            self._stepper.restore()
        else:
            seed = [self.seed, zlib.crc32(self.task.suite.encode()), self.task.index, init_state_index]
            start = self._draws.draw(seed) if self._is_drawn else self._draws.start(init_state_index)
            self._draws.place(start.poses)
            self._stepper.restore(start.state)
        if self._is_drawn:
            self._stepper.resume()  # the arm stands where it was drawn
            self._after_placing()
        else:
            self._set_first_state(self._init_states[init_state_index])

    def restart(self, state: np.ndarray, settle_steps: int = 10) -> None:
        """Begin an episode from a flat state (time, qpos, qvel) as `reset` does from a shipped one. Fixtures stay where
        they are.

        Raises SimulationError for a state of another model.
        """
        self._refuse_other_model(state)
        self._stepper.restore()
        self._set_first_state(state)
        for _ in range(settle_steps):
            self._advance(IDLE_ACTION)

    def _set_first_state(self, state: np.ndarray) -> None:
        self._env.sim.set_state_from_flattened(state)
        self._env.sim.forward()
        self._after_placing()

    def _after_placing(self) -> None:
        """As in LIBERO's own set_init_state: switches the stoves on or off."""
        self._env._check_success()
        self._env._post_process()

    def set_state(self, state: np.ndarray, past_actions: Sequence[np.ndarray] = ()) -> None:
        """Set a stored flat state (time, qpos, qvel); the next step continues from it.

        `past_actions`, each (7,), give a following `step` the gripper's set point; images do not depend on them.
        Raises SimulationError for a state of another model.
        """
        self._refuse_other_model(state)
        self._stepper.restore()
        self._env.sim.set_state_from_flattened(state)
        self._env.sim.forward()
        self._stepper.resume(past_actions)
        self._after_placing()

    def _refuse_other_model(self, state: np.ndarray) -> None:
        if state.shape != self.state().shape:
            raise SimulationError(
                f"A state of {self.task.suite} task {self.task.index} has {len(self.state())} numbers, "
                f"this one has shape {state.shape}.",
                "It was stored with another task or another version of LIBERO.",
            )

    @property
    def image_size(self) -> int:
        """Side of the rendered images in pixels."""
        return self._image_size

    @property
    def has_fixtures(self) -> bool:
        """Whether the scene has objects that are fixed to the world, such as a cabinet."""
        return bool(self._env.fixtures_dict)

    @property
    def joint_columns(self) -> np.ndarray:
        """(7,) indices of the arm's joint positions in a flat state."""
        return 1 + np.asarray(self._env.robots[0]._ref_joint_pos_indexes)  # 1: the time comes first

    def place_fixtures(self, poses: Mapping[str, BodyPose]) -> None:
        """Move fixtures (cabinet, stove, rack) to their poses in a stored model, until they are placed again.

        `poses` by body name, as read by `stored_poses`. LIBERO draws them at every creation, and states do not include
        them. Raises SimulationError if `poses` lacks a fixture.
        """
        for fixture in self._env.fixtures_dict.values():
            if fixture.root_body not in poses:
                raise SimulationError(
                    f"The stored model has no body {fixture.root_body} of {self.task.suite} task {self.task.index}.",
                    "It was stored with another task or another version of LIBERO.",
                )
            place_body(self.sim_model, fixture.root_body, poses[fixture.root_body])

    def sample_target_shift(
        self, init_state_index: int, rng: np.random.Generator, low_m: float, high_m: float
    ) -> tuple[float, float]:
        """A shift (x, y) in m for the target: uniform per axis in [-high_m, high_m], drawn again while both axes
        are below `low_m` or the place is not clear or out of reach. Raises SimulationError if none is found."""
        self.restore_state(init_state_index)
        return self.placement.sample_shift(rng, low_m, high_m)

    def step(self, action: np.ndarray) -> bool:
        """Execute a raw LIBERO action (7,) in [-1, 1], gripper -1 open / +1 close; returns success.

        Never renders. Bit-identical in state to the stock `env.step`.
        """
        self._advance(np.asarray(action, dtype=np.float64))
        return self.success()

    def _advance(self, action: np.ndarray) -> None:
        """Make one control step; every step goes through here."""
        self._stepper.step(action)

    def _seen(self, images: np.ndarray) -> np.ndarray:
        """What a policy sees of the rendered images (2, H, W, 3), both upside down."""
        return images

    def success(self) -> bool:
        """Whether the current state satisfies the goal."""
        return bool(self._env._check_success())

    def observe(self, *, images: bool = True, masks: bool = False) -> Observation:
        """Observe the current state; renders only what is requested.

        Recomputes poses from the joint positions first, because MuJoCo's are one 2 ms substep old after a step.
        """
        self.refresh()
        return Observation(
            proprio=self.proprio(),
            images=upright(self._seen(self._render().images())) if images else None,
            masks=self.target_masks() if masks else None,
        )

    def proprio(self) -> np.ndarray:
        """(8,) float32: end effector position 3 in m, axis-angle 3 in rad, finger positions 2 in m."""
        position, quaternion, fingers = self.robot_pose()
        return np.concatenate([position, quaternion_to_axis_angle(quaternion), fingers]).astype(np.float32)

    def robot_pose(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """End effector position (3,) m, hand quaternion (4,) xyzw, finger positions (2,) m: LIBERO's own."""
        robot, data = self._env.robots[0], self._env.sim.data
        hand = self._env.sim.model.body_name2id(robot.robot_model.eef_name)
        quaternion = np.roll(self.sim_data.xquat[hand], -1)  # MuJoCo wxyz -> xyzw
        fingers = np.array(data.qpos[robot._ref_gripper_joint_pos_indexes])
        return np.array(self.sim_data.site_xpos[robot.eef_site_id]), quaternion, fingers

    def finger_speeds(self) -> np.ndarray:
        """(2,) velocities of the fingers in m/s."""
        return np.array(self.sim_data.qvel[self._env.robots[0]._ref_gripper_joint_vel_indexes])

    def joint_positions(self) -> np.ndarray:
        """(7,) arm joint positions in rad."""
        return np.array(self.sim_data.qpos[self._env.robots[0]._ref_joint_pos_indexes])

    def stored_images(self) -> np.ndarray:
        """(2, H, W, 3) uint8, base then wrist, as LIBERO's files store them: upside down."""
        self.refresh()
        return self._render().images()

    def stored_masks(self) -> np.ndarray:
        """(2, H, W) uint8 instance masks as LIBERO's files store pictures: upside down."""
        self.refresh()
        return self._render().geom_labels(self.geom_labels)

    def instance_masks(self) -> np.ndarray:
        """(2, H, W) uint8, index in `instances` plus 1, 0 for robot, table and surroundings; right way up."""
        return upright(self.stored_masks())

    def target_masks(self) -> np.ndarray:
        """(2, H, W) uint8, 1 where a target or reference object is visible; right way up."""
        self.refresh()
        is_target = np.isin(self.geom_labels, self.target_labels())
        return upright(self._render().geom_labels(is_target.astype(np.uint8), is_target))

    def target_labels(self) -> list[int]:
        """Mask values of the target instances."""
        return [self.instances.index(name) + 1 for name in self.target_instances]

    @property
    def renderer(self) -> str:
        """Back end and GL renderer: `osmesa, llvmpipe (LLVM 15.0.6, 256 bits)`. Empty before the first image."""
        return "" if self._compiler.renderer is None else self._compiler.renderer.name

    @property
    def libero(self) -> Any:
        """The inner robosuite environment, for the expert and for tests."""
        return self._env

    @property
    def sim_model(self) -> Any:
        """MuJoCo's model."""
        return self._env.sim.model._model

    @property
    def sim_data(self) -> Any:
        """MuJoCo's data."""
        return self._env.sim.data._data

    def state(self) -> np.ndarray:
        """The flat simulation state: time, qpos, qvel."""
        return self._env.sim.get_state().flatten()

    def close(self) -> None:
        """Free the GL context and the simulation."""
        self._compiler.forget()
        self._env.close()

    def refresh(self) -> None:
        """Recompute poses from the joint positions (after a step MuJoCo's are one substep old)."""
        # Kinematics only: the solver does not run, so later physics is unaffected.
        self._mujoco.mj_kinematics(self.sim_model, self.sim_data)
        self._mujoco.mj_comPos(self.sim_model, self.sim_data)
        self._mujoco.mj_camlight(self.sim_model, self.sim_data)

    def _render(self) -> Renderer:
        if self._compiler.renderer is None:
            self._compiler.renderer = Renderer(self._env.sim, self._image_size, fast_rendering=self._fast_rendering)
        return self._compiler.renderer
