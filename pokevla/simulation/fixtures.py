"""Where cabinet, stove and rack stand in each trial of the published protocol.

LIBERO draws the poses of fixtures at every `reset()`, and the shipped initial states do not include them. OpenVLA-OFT
(experiments/robot/libero/run_libero_eval.py, libero_utils.py) calls `env.seed(0)` once per task and `env.reset()`
before every trial, so trial k sees draw k of one sequence.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pokevla.simulation.simulator import BuiltEnvironment, load_simulator
from pokevla.simulation.stored_models import BodyPose


@dataclass(frozen=True)
class TrialStart:
    """The simulation right after reset number k of the published loop.

    `poses`: of the fixtures, by body. `state`: MuJoCo's integration state (mjSTATE_INTEGRATION), in which the solver's
    warm start follows from the poses.
    """

    poses: dict[str, BodyPose]
    state: np.ndarray


class FixtureDraws:
    """The sequence of `TrialStart` of one environment, a function of (task, seed).

    A reset of LIBERO compiles the model anew, which takes seconds. Here only its random draws are repeated, with
    LIBERO's own code, on the model that exists (about 20 ms each). Each is made once.
    """

    def __init__(self, built: BuiltEnvironment) -> None:
        """`built` must be as `build_libero_env` returned it: after reset number 0."""
        self._mujoco, _ = load_simulator()
        self._env = built.env
        self._samplers = built.property_samplers
        self._generator = built.generator
        self._model, self._data = self._env.sim.model._model, self._env.sim.data._data
        self._compiled = {
            fixture.root_body: _compiled_pose(self._env, fixture.root_body)
            for fixture in self._env.fixtures_dict.values()
        }
        self._starts = [self._capture()]

    def start(self, reset_index: int) -> TrialStart:
        """The start after reset `reset_index`. Leaves the simulation in any state: restore it afterwards."""
        if reset_index >= len(self._starts):
            controller = self._env.robots[0].controller
            with _global_generator(self._generator), contextlib.redirect_stdout(io.StringIO()):
                while reset_index >= len(self._starts):
                    self._reset()
                    self._starts.append(self._capture())
                self._generator = np.random.get_state()
            # LIBERO makes a new controller at every reset; the steps are made with the first.
            self._env.robots[0].controller = controller
        return self._starts[reset_index]

    def draw(self, seed: Sequence[int]) -> TrialStart:
        """A start with everything where LIBERO's samplers put it, objects included: a function of (task, `seed`).

        Leaves the simulation in any state: restore it afterwards. The shipped initial states are draws of the same
        samplers that were settled and selected.
        """
        properties = self._env.object_property_initializers
        before, controller = list(properties), self._env.robots[0].controller
        generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed))).get_state()
        with _global_generator(generator), contextlib.redirect_stdout(io.StringIO()):
            properties.clear()  # `_reset` registers those of one load, so that earlier resets draw no numbers
            self._reset(again=False)
            properties[:] = before
        self._env.robots[0].controller = controller
        return self._capture()

    def place(self, poses: dict[str, BodyPose]) -> None:
        """Move the fixtures, exactly."""
        for name, pose in poses.items():
            body = self._model.body(name)
            body.pos[:] = pose.position
            body.quat[:] = pose.quaternion

    def _reset(self, *, again: bool = True) -> None:
        """`reset()` of LIBERO's wrapper without the compilation: it retries until a placement fits.

        With `again`, as LIBERO does, every retry registers the samplers of drawers and knobs once more.
        """
        from robosuite.utils.errors import RandomizationError

        while True:
            # Samplers of drawers and knobs are registered once more at every load, and all of them draw.
            if again or not self._env.object_property_initializers:
                self._env.object_property_initializers.extend(self._samplers)
            self.place(self._compiled)
            self._mujoco.mj_resetData(self._model, self._data)
            self._mujoco.mj_forward(self._model, self._data)
            with contextlib.suppress(RandomizationError):
                self._env._reset_internal()
                self._mujoco.mj_forward(self._model, self._data)
                return

    def _capture(self) -> TrialStart:
        spec = int(self._mujoco.mjtState.mjSTATE_INTEGRATION)
        state = np.empty(self._mujoco.mj_stateSize(self._model, spec))
        self._mujoco.mj_getState(self._model, self._data, state, spec)
        poses = {}
        for name in self._compiled:
            body = self._model.body(name)
            poses[name] = BodyPose(np.array(body.pos), np.array(body.quat))
        return TrialStart(poses, state)


@contextlib.contextmanager
def _global_generator(state: Any) -> Iterator[None]:
    """Use `state` in numpy's global generator, from which LIBERO draws, and put back what was there."""
    before = np.random.get_state()
    np.random.set_state(state)
    try:
        yield
    finally:
        np.random.set_state(before)


def _compiled_pose(env: Any, name: str) -> BodyPose:
    """Pose of a body as the model is compiled, before a placement is drawn."""
    body = env.model.worldbody.find(f"./body[@name='{name}']")
    numbers = {
        key: np.array([float(word) for word in body.get(key, default).split()])
        for key, default in (("pos", "0 0 0"), ("quat", "1 0 0 0"))
    }
    return BodyPose(numbers["pos"], numbers["quat"])
