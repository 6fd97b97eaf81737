"""Chooses a GL back-end, imports LIBERO and MuJoCo, and builds LIBERO environments.

MuJoCo and robosuite read MUJOCO_GL once, at import. If it is unset robosuite requests EGL, which on a machine without a
GPU driver fails with a message about GL internals. So the back-end is chosen before they are imported.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from typing import Any, NamedTuple

from pokevla.errors import EnvironmentSetupError, SimulationError
from pokevla.processes import collector_paused
from pokevla.simulation.suites import TaskInfo

_APT_PACKAGE = {"osmesa": "libosmesa6", "egl": "libegl1", "glfw": "libglfw3"}
_PLACEMENT_ATTEMPTS = 20


class BuiltEnvironment(NamedTuple):
    """A new LIBERO environment and what its later resets depend on."""

    env: Any
    """The inner robosuite environment."""
    property_samplers: list[Any]
    """Samplers of drawers and knobs that one load of the model registers."""
    generator: Any
    """State of numpy's global generator after the last reset (`numpy.random.get_state()`)."""


def choose_gl_backend() -> str:
    """Set MUJOCO_GL unless the user has chosen a back-end or has a display; returns the back-end in use.

    `egl` where the NVIDIA driver shows a GPU and libEGL is installed, else `osmesa`, which renders in software.
    """
    if "MUJOCO_GL" not in os.environ and not os.environ.get("DISPLAY"):
        os.environ["MUJOCO_GL"] = "egl" if find_library("EGL") and visible_gpus() else "osmesa"
    return os.environ.get("MUJOCO_GL", "")


def visible_gpus() -> list[str]:
    """Indices of the GPUs that this process may use, in the driver's order; [] without an NVIDIA driver.

    Those of CUDA_VISIBLE_DEVICES, whose entries are indices or UUIDs, else all.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        index_of = {str(index): str(index) for index in range(len(handles))}
        index_of |= {str(pynvml.nvmlDeviceGetUUID(handle)): str(index) for index, handle in enumerate(handles)}
    except pynvml.NVMLError:
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(index) for index in range(len(handles))]
    return [index_of[name.strip()] for name in named.split(",") if name.strip() in index_of]


def load_simulator() -> tuple[Any, Any]:
    """Import and return the modules (mujoco, libero.libero.envs).

    Raises EnvironmentSetupError naming the apt package and MUJOCO_GL where no GL library can be loaded.
    """
    backend = choose_gl_backend()
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    try:
        # robosuite frees a simulation with a full collection, which need not visit what is imported.
        first = contextlib.nullcontext() if "mujoco" in sys.modules else collector_paused()
        # Suppress the advice that both packages print on import (missing macros file, gym).
        with contextlib.redirect_stdout(io.StringIO()), first:
            import mujoco
            from libero.libero import envs
    except ModuleNotFoundError as error:
        raise EnvironmentSetupError(
            f"The simulator cannot be imported ({error}).", "Install it with: pip install 'pokevla[sim]'"
        ) from error
    # PyOpenGL reports a missing library as AttributeError on None; a bogus MUJOCO_GL is a RuntimeError.
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise gl_error(backend, error) from error
    return mujoco, envs


def gl_error(backend: str, error: Exception) -> EnvironmentSetupError:
    """Error for a GL library that is missing or does not work."""
    package = _APT_PACKAGE.get(backend, "libosmesa6")
    return EnvironmentSetupError(
        f"No usable OpenGL library for MUJOCO_GL={backend or '(unset)'} ({type(error).__name__}: {error}).",
        f"Install one with: apt-get install {package}  (for software rendering: apt-get install libosmesa6 "
        "and MUJOCO_GL=osmesa).",
    )


def build_libero_env(
    task: TaskInfo,
    seed: int,
    compile_model: Callable[[str], Any],
    *,
    robot: str = "Panda",
    always_reset: bool = False,
) -> BuiltEnvironment:
    """A LIBERO environment as after a fresh creation and `seed(seed); reset()`, without camera or GL context.

    LIBERO draws fixture poses from numpy's global generator, which is seeded for the creation and
    restored afterwards, so that the result is a function of (task, seed) alone. The reset is left out where it changes
    nothing but the generator, unless `always_reset`. `robot`: name of a robot of robosuite without LIBERO's prefix.
    `compile_model` (XML -> mujoco.MjModel) compiles the model, which is done once more at the reset.

    Raises SimulationError if LIBERO finds no placement.
    """
    import numpy as np

    _, envs = load_simulator()
    from robosuite.utils.errors import RandomizationError

    state = np.random.get_state()
    try:
        np.random.seed(seed)
        for _ in range(_PLACEMENT_ATTEMPTS):
            # LIBERO's own wrapper also retries: a random placement of the objects may not fit.
            with (
                contextlib.suppress(RandomizationError),
                contextlib.redirect_stdout(io.StringIO()),
                _compiling_with(compile_model),
            ):
                control = envs.env_wrapper.ControlEnv(
                    bddl_file_name=str(task.bddl_file),
                    robots=[robot],
                    has_offscreen_renderer=False,
                    use_camera_obs=False,
                )
                env = control.env
                samplers = list(env.object_property_initializers)
                if env.fixtures_dict or always_reset:
                    # LIBERO registers drawer and knob samplers once more on every load, which shifts its random
                    # numbers: only the real sequence gives the fixture poses every published evaluation saw.
                    np.random.seed(seed)
                    control.reset()
                env.sim.forward()
                env.visualize(vis_settings=dict.fromkeys(env._visualizations, False))
                return BuiltEnvironment(env, samplers, np.random.get_state())
    finally:
        np.random.set_state(state)
    raise SimulationError(
        f"{task.suite} task {task.index}: LIBERO found no valid placement of the objects with seed {seed}.",
        "Choose another seed.",
    )


@contextlib.contextmanager
def _compiling_with(compile_model: Callable[[str], Any]) -> Iterator[None]:
    """Have robosuite compile with `compile_model` in the block. It offers no way to pass a compiled model."""
    from robosuite.utils.binding_utils import MjSim

    original = MjSim.__dict__["from_xml_string"]
    MjSim.from_xml_string = classmethod(lambda cls, xml: cls(compile_model(xml)))  # type: ignore[assignment]
    try:
        yield
    finally:
        MjSim.from_xml_string = original
