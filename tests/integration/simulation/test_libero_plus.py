"""Each perturbation of LIBERO-Plus on one task, in real MuJoCo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pokevla.errors import SimulationError
from pokevla.simulation.benchmark import EnvironmentSettings, TaskSource
from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.libero_plus.assets import installed_assets
from pokevla.simulation.libero_plus.environment import PlusEnvironment
from pokevla.simulation.libero_plus.perturbations import blurs
from pokevla.simulation.libero_plus.perturbations.robots import initial_joints
from tests.libero_plus import ADDED, BACKGROUND, CAMERA, MOVED, NOISE, ROBOT, copied_sample, sample_source

pytestmark = pytest.mark.simulator
SUITE = "libero_object"
CREAM_CHEESE = 1
SIZE = 64
OFFICIAL_CAMERA = ([0.8698, 0.2494, 0.8872], [0.5598, 0.221, 0.2932, 0.7429])


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> TaskSource:
    return sample_source(monkeypatch)


def _make(index: int, source: TaskSource) -> PlusEnvironment:
    return PlusEnvironment(SUITE, index, EnvironmentSettings(SIZE, True, 0, source=source))


def _images(env: LiberoEnvironment) -> np.ndarray:
    images = env.observe().images
    assert images is not None
    return images


def _assert_same_state(ours: LiberoEnvironment, plain: LiberoEnvironment) -> None:
    """But for the last bits: LIBERO-Plus resets once more at creation, which moves the solver's warm start."""
    np.testing.assert_allclose(ours.state(), plain.state(), rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def plain() -> LiberoEnvironment:
    env = LiberoEnvironment(SUITE, CREAM_CHEESE, image_size=SIZE, fast_rendering=True)
    env.reset(0, settle_steps=2)
    return env


def test_a_moved_camera_changes_the_base_view_and_nothing_else(source: TaskSource, plain: LiberoEnvironment) -> None:
    env = _make(CAMERA, source)
    env.reset(0, settle_steps=2)

    # What libero_floor_manipulation.py of LIBERO-Plus gives for _view_16_15_100_0_0: four digits.
    np.testing.assert_array_equal(env.sim_model.camera("agentview").pos, OFFICIAL_CAMERA[0])
    quaternion = np.array(OFFICIAL_CAMERA[1])
    np.testing.assert_allclose(
        env.sim_model.camera("agentview").quat, quaternion / np.linalg.norm(quaternion), atol=1e-15
    )
    _assert_same_state(env, plain)
    ours, theirs = _images(env), _images(plain)
    assert np.abs(ours[0].astype(int) - theirs[0]).mean() > 5
    assert np.abs(ours[1].astype(int) - theirs[1]).mean() < 0.05
    env.close()


def test_the_arm_moves_towards_the_perturbed_pose_or_starts_in_it(
    monkeypatch: pytest.MonkeyPatch, plain: LiberoEnvironment
) -> None:
    published = _make(ROBOT, sample_source(monkeypatch))
    full = _make(ROBOT, sample_source(monkeypatch, robot_init="full"))
    perturbed = initial_joints()[42 - 1]
    plain.reset(0, settle_steps=0)
    nominal = plain.joint_positions()

    published.reset(0, settle_steps=0)
    np.testing.assert_array_equal(published.joint_positions(), nominal)  # the initial state sets it back
    published.reset(0, settle_steps=10)
    moved = np.abs(published.joint_positions() - nominal).max()
    full.reset(0, settle_steps=0)
    np.testing.assert_array_equal(full.joint_positions(), perturbed)
    full.reset(0, settle_steps=10)

    assert moved > 0.03  # the controller's goal is still the perturbed orientation
    assert np.abs(full.joint_positions() - perturbed).max() < 0.02
    plain.reset(0, settle_steps=2)
    published.close()
    full.close()


def test_noise_takes_the_numbers_of_the_official_loop(source: TaskSource, plain: LiberoEnvironment) -> None:
    from libero.libero.envs.env_wrapper import ControlEnv

    env = _make(CAMERA, source)
    env.switch(NOISE)  # fog, severity 3; shares the simulation of the camera task
    np.random.seed(0)  # the creation draws as well, and with some numbers LIBERO finds no place for an object
    stock = ControlEnv(bddl_file_name=str(env.task.bddl_file), has_offscreen_renderer=False, use_camera_obs=False)
    stock.seed(0)
    stock.reset()  # from here on the official loop draws for the images of the reset and of each step
    rng = np.random.RandomState()
    rng.set_state(np.random.get_state())
    for _ in range(3):
        blurs.skip_draws("fog", 3, SIZE, rng)

    env.reset(0, settle_steps=2)
    env.step(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]))
    clean = env.stored_images()
    seen = _images(env)[:, ::-1, ::-1]

    np.testing.assert_array_equal(seen[0], blurs.fog(clean[0], 3, rng))
    np.testing.assert_array_equal(seen[1], clean[1])
    np.testing.assert_array_equal(_images(env)[:, ::-1, ::-1], seen)
    plain.reset(0, settle_steps=3)
    _assert_same_state(env, plain)
    assert (
        np.abs(clean.astype(int) - plain.stored_images()).mean() < 1
    )  # the camera stands where it was, but for digits
    plain.reset(0, settle_steps=2)
    env.close()


def test_a_moved_layout_starts_from_its_own_state(source: TaskSource, plain: LiberoEnvironment) -> None:
    env = _make(MOVED, source)
    env.reset(0, settle_steps=2)
    assert env.state().shape == plain.state().shape
    assert np.abs(env.state() - plain.state()).max() > 0.03
    with pytest.raises(SimulationError, match="no initial state 1"):
        env.reset(1)
    env.close()


CODE = {
    "problems/libero_floor_manipulation.py": """
class Libero_Floor_Manipulation(BDDLBaseDomain):
    def __init__(self):
        kwargs.update({"scene_xml": "scenes/libero_floor_base_style.xml"})
        kwargs.update({"scene_properties": {"floor_style": "light-gray", "wall_style": "light-gray-plaster"}})

class Libero_Floor_Manipulation_FloorFabricModeledDenim001_COL_VAR1_3K(Libero_Floor_Manipulation):
    def __init__(self):
        kwargs.update({"scene_properties": {"floor_style": "stand-in", "wall_style": "light-gray-plaster"}})
""",
    "arenas/style.py": """
FLOOR_STYLE = {"stand-in": "marble_floor.png"}
WALL_STYLE = {"light-gray-plaster": "light-gray-plaster.png"}
""",
    "objects/custom_objects.py": "".join(
        f"""
class {name}(CustomObjects):
    def __init__(self):
        custom_path = f"assets/new_objects/box.xml"
"""
        for name in ("BoxOfVegetableJuice_1", "BottleOfAlfredoSauce", "BottleOfAspirin")
    ),
}
BOX = """<mujoco model="box"><worldbody><body name="object">
<geom type="box" size="0.02 0.02 0.02" group="0" rgba="1 0 0 1" density="100"/>
<geom type="box" size="0.02 0.02 0.02" group="1" contype="0" conaffinity="0" rgba="1 0 0 1"/>
<site name="bottom_site" pos="0 0 -0.02" size="0.005"/><site name="top_site" pos="0 0 0.02" size="0.005"/>
<site name="horizontal_radius_site" pos="0.02 0.02 0" size="0.005"/></body></worldbody></mujoco>"""


def test_scenes_and_added_objects_run_once_their_files_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain: LiberoEnvironment
) -> None:
    """With files in the form of the official ones, which are not free to copy: a marble floor and red boxes."""
    checkout, assets = copied_sample(tmp_path), tmp_path / "assets"
    for name, text in CODE.items():
        (checkout / "libero/libero/envs" / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / "libero/libero/envs" / name).write_text(text, encoding="utf-8")
    with pytest.raises(SimulationError, match="the checkout has no"):
        _make(BACKGROUND, sample_source(monkeypatch))
    with pytest.raises(SimulationError, match="it needs the assets"):
        _make(ADDED, sample_source(monkeypatch, checkout=checkout))

    (assets / "new_objects").mkdir(parents=True)
    (assets / "new_objects/box.xml").write_text(BOX, encoding="utf-8")
    for name in ("scenes", "textures"):
        (assets / name).symlink_to(installed_assets() / name)
    source = sample_source(monkeypatch, checkout=checkout, assets=assets)
    background, added = _make(BACKGROUND, source), _make(ADDED, source)
    background.reset(0, settle_steps=2)
    added.reset(0, settle_steps=2)

    _assert_same_state(background, plain)
    assert np.abs(_images(background)[0].astype(int) - _images(plain)[0]).mean() > 5
    assert {"bottle_of_aspirin_1", "box_of_vegetable_juice__1_1"} < set(added.instances)
    assert np.isfinite(_images(added)).all()
    background.close()
    added.close()
