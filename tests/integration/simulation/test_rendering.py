"""What makes rendering cheap does not change a pixel it should not."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pokevla.simulation.environment import LiberoEnvironment

pytestmark = pytest.mark.simulator

# The dynamic loader of a machine on which Mesa's off-screen library is not installed.
MASKED_LIBRARY = """
import ctypes, ctypes.util
load, find = ctypes.CDLL.__init__, ctypes.util.find_library
def masked(self, name, *args, **kwargs):
    if "OSMesa" in str(name):
        raise OSError(f"{name}: cannot open shared object file: No such file or directory")
    load(self, name, *args, **kwargs)
ctypes.CDLL.__init__ = masked
ctypes.util.find_library = lambda name: None if "OSMesa" in name else find(name)
"""


def test_culling_is_pixel_identical_and_thinning_close() -> None:
    thin = LiberoEnvironment("libero_object", 2, image_size=64, fast_rendering=True)
    thin.reset(0)
    culled = thin.stored_images()
    renderer = thin._render()
    assert renderer._may_cull
    renderer._may_cull = False
    np.testing.assert_array_equal(renderer.images(), culled)

    faces = thin.sim_model.mesh_facenum.copy()
    full = LiberoEnvironment("libero_object", 2, image_size=64)
    full.reset(0)
    np.testing.assert_array_equal(full.sim_model.mesh_facenum, faces)  # thinning is undone in the model
    np.testing.assert_array_equal(full.state(), thin.state())
    pictures = full.stored_images()
    assert np.abs(pictures.astype(int) - culled).mean() < 6
    assert (full.instance_masks() != thin.instance_masks()).mean() < 0.02


def test_default_rendering_culls_only_what_no_mirror_shows() -> None:
    env = LiberoEnvironment("libero_spatial", 7, image_size=64)  # the stove mirrors
    env.reset(0, settle_steps=1)
    renderer = env._render()
    assert renderer._may_cull
    assert len(renderer._mirrors)
    in_view = set()
    for turn in (0.0, 1.3, -1.3):  # of the arm's first joint: the hand looks at the table, and to either side
        env.reset(0, settle_steps=0)
        env.sim_data.qpos[env.joint_columns[0] - 1] += turn
        culled = env.stored_images()
        wrist = renderer._camera_ids[1]
        in_view.add(bool(renderer._in_frustum(wrist)[renderer._mirrors].any()))
        renderer._may_cull = False
        np.testing.assert_array_equal(env.stored_images(), culled)
        renderer._may_cull = True
    assert in_view == {True, False}
    env.close()


@pytest.mark.parametrize(
    ("backend", "prelude"), [("osmesa", MASKED_LIBRARY), ("nonsense", "")], ids=["no library", "bogus back-end"]
)
def test_without_gl_the_error_names_package_and_variable(
    backend: str, prelude: str, tiny_run_env: dict[str, str]
) -> None:
    code = prelude + (
        "from pokevla.errors import EnvironmentSetupError\n"
        "from pokevla.simulation.environment import LiberoEnvironment\n"
        "try:\n    LiberoEnvironment('libero_object', 0).observe()\n"
        "except EnvironmentSetupError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=tiny_run_env | {"MUJOCO_GL": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "libosmesa6" in done.stdout, done.stderr
    assert f"MUJOCO_GL={backend}" in done.stdout


def test_an_environment_that_is_closed_leaves_the_pictures_of_others_alone() -> None:
    first, second = (LiberoEnvironment("libero_object", task, image_size=64, fast_rendering=True) for task in (1, 3))
    first.reset(0)
    second.reset(0)
    first.stored_images()
    before = second.stored_images()
    first.close()  # while the GL context of the second is the current one
    np.testing.assert_array_equal(second.stored_images(), before)
    second.close()
