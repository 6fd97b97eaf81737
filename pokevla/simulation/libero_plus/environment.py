"""A task of LIBERO-Plus as an environment: LIBERO's, with camera, arm, images, layout or scene perturbed."""

from __future__ import annotations

from functools import partial

import numpy as np

from pokevla.simulation.benchmark import EnvironmentSettings
from pokevla.simulation.compiling.cache import user_model_cache
from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.libero_plus.availability import NATIVE, prepare
from pokevla.simulation.libero_plus.names import SHARING
from pokevla.simulation.libero_plus.perturbations.camera import moved_camera
from pokevla.simulation.libero_plus.perturbations.noise import SensorNoise
from pokevla.simulation.libero_plus.perturbations.robots import initial_joints, register_robot
from pokevla.simulation.libero_plus.tasks import PlusTask, initial_states, plus_task
from pokevla.simulation.rendering import CAMERAS
from pokevla.simulation.simulator import BuiltEnvironment, build_libero_env
from pokevla.simulation.suites import TaskInfo


class PlusEnvironment(LiberoEnvironment):
    """One perturbed task. An episode is a pure function of what one of LIBERO is, and of the task source."""

    task: PlusTask

    def __init__(self, suite: str, task_index: int, settings: EnvironmentSettings) -> None:
        """Raises what `plus_task` and `LiberoEnvironment` raise."""
        self._source = settings.source
        self._noise: SensorNoise | None = None
        super().__init__(
            suite,
            task_index,
            image_size=settings.image_size,
            fast_rendering=settings.fast_rendering,
            seed=settings.seed,
            fixtures=settings.fixtures,
            model_cache=user_model_cache(),
        )

    def switch(self, task_index: int) -> None:
        """Become another task of the suite, in every respect as a new environment of it would be.

        Takes milliseconds if both differ from one base task in camera, instruction or noise only.
        """
        task = plus_task(self._source, self.task.suite, task_index)
        if task.base != self.task.base or not {task.parts.kind, self.task.parts.kind} <= SHARING:
            super().switch(task_index)
            return
        self.task = task
        self._set_noise()
        self._place_camera()

    def _load(self, task: TaskInfo) -> None:
        super()._load(task)
        self._place_camera()

    def restore_state(self, init_state_index: int) -> None:
        """Set an initial state, without settling.

        It holds the nominal joints of the arm, also in Robot Initial States tasks. Officially it is set over the
        perturbed pose, while the controller keeps the orientation of that pose as its goal and its joints as those that
        it prefers, so that the arm moves back towards them in the first steps. `robot_init: full` sets these joints.
        """
        super().restore_state(init_state_index)
        if self._noise is not None:
            self._noise.begin()
        if self.task.parts.robot and self._source.robot_init == "full":
            columns = self._env.robots[0]._ref_joint_pos_indexes
            self._env.sim.data.qpos[columns] = initial_joints()[self.task.parts.robot - 1]
            self._env.sim.forward()
            self._stepper.resume()

    def _find_task(self, suite: str, index: int) -> PlusTask:
        return plus_task(self._source, suite, index)

    def _load_init_states(self) -> np.ndarray:
        return initial_states(self.task)

    def _build(self) -> BuiltEnvironment:
        parts = self.task.parts
        prepare(self._source, self.task)
        robot = register_robot(parts.robot) if parts.robot else "Panda"
        # Scenes with added objects, other lamps or textures belong to one task or a few.
        compile_model = partial(self._compiler.compile, once=parts.kind not in NATIVE)
        built = build_libero_env(self.task, self.seed, compile_model, robot=robot, always_reset=True)
        self._generator = built.generator
        self._set_noise()
        return built

    def _set_noise(self) -> None:
        number = self.task.parts.noise
        self._noise = SensorNoise(number, self._image_size, self._generator) if number else None

    def _place_camera(self) -> None:
        """Officially every task's base camera goes through the rounding of `moved_camera`, also where none is moved."""
        element = self._env.model.worldbody.find(f"./camera[@name='{CAMERAS[0]}']")
        numbers = {key: [float(word) for word in element.get(key).split()] for key in ("pos", "quat")}
        position, quaternion = moved_camera(numbers["pos"], numbers["quat"], self.task.parts.camera)
        camera = self.sim_model.camera(CAMERAS[0])
        camera.pos[:] = position
        camera.quat[:] = np.array(quaternion) / np.sqrt(np.sum(np.square(quaternion)))  # as MuJoCo's compiler does

    def _advance(self, action: np.ndarray) -> None:
        super()._advance(action)
        if self._noise is not None:
            self._noise.advance()

    def _seen(self, images: np.ndarray) -> np.ndarray:
        if self._noise is None:
            return images
        return np.stack([self._noise.apply(images[0]), *images[1:]])  # the wrist view has none
