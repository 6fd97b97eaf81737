"""What makes rendering cheap does not change a pixel it should not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pokevla.simulation.environment import LiberoEnvironment

pytestmark = pytest.mark.simulator


def test_culling_is_pixel_identical_and_thinning_close() -> None:
    thin = LiberoEnvironment("libero_object", 2, image_size=64, fast_rendering=True)
    thin.reset(0)
    culled = thin.observe().images
    assert culled is not None
    renderer = thin._render()
    assert renderer._may_cull
    renderer._may_cull = False
    np.testing.assert_array_equal(renderer.images(), culled)

    faces = thin.sim_model.mesh_facenum.copy()
    full = LiberoEnvironment("libero_object", 2, image_size=64)
    full.reset(0)
    np.testing.assert_array_equal(full.sim_model.mesh_facenum, faces)  # thinning is undone in the model
    np.testing.assert_array_equal(full.state(), thin.state())
    pictures = full.observe().images
    assert pictures is not None
    assert np.abs(pictures.astype(int) - culled).mean() < 6
    assert (full.instance_masks() != thin.instance_masks()).mean() < 0.02


@pytest.mark.parametrize(
    ("backend", "path", "package"),
    [("osmesa", "/nonexistent", "libosmesa6"), ("nonsense", None, "libosmesa6")],
)
def test_without_gl_the_error_names_package_and_variable(
    backend: str, path: str | None, package: str, tiny_run_env: dict[str, str]
) -> None:
    # PyOpenGL finds libraries through ctypes.util; one that finds none stands for a machine without Mesa.
    hide = "import ctypes.util; ctypes.util.find_library = lambda name: None; " if path else ""
    code = (
        hide
        + "from pokevla.errors import EnvironmentSetupError\n"
        + "from pokevla.simulation.environment import LiberoEnvironment\n"
        + "try:\n    LiberoEnvironment('libero_object', 0).observe()\n"
        + "except EnvironmentSetupError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=tiny_run_env | {"MUJOCO_GL": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert package in done.stdout, done.stderr
    assert f"MUJOCO_GL={backend}" in done.stdout
