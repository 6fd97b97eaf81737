"""The environment against stock LIBERO, in real MuJoCo."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pokevla.errors import SimulationError
from pokevla.simulation.environment import LiberoEnvironment
from pokevla.simulation.rendering import CAMERAS
from pokevla.simulation.suites import get_task, load_init_states

pytestmark = pytest.mark.simulator
BBQ = 3


@pytest.fixture(scope="module")
def env() -> Iterator[LiberoEnvironment]:
    made = LiberoEnvironment("libero_object", BBQ, image_size=64, fast_rendering=True)
    yield made
    made.close()


def _actions(num: int) -> np.ndarray:
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (num, 7))
    actions[:, 6] = np.sign(actions[:, 6])
    return actions


def _rollout(env: LiberoEnvironment, *, look: bool = False, init_state: int = 3) -> np.ndarray:
    env.reset(init_state, settle_steps=0)
    states = []
    for action in _actions(20):
        env.step(action)
        states.append(env.state())
        if look:
            env.observe(images=True, masks=True)
    return np.array(states)


# Task 5 of libero_goal has fixtures whose poses LIBERO draws at random.
@pytest.mark.parametrize(("suite", "index"), [("libero_object", BBQ), ("libero_spatial", 4)])
def test_twenty_steps_are_bit_identical_to_stock_libero(suite: str, index: int) -> None:
    from libero.libero.envs.env_wrapper import ControlEnv

    ours = LiberoEnvironment(suite, index)
    task = get_task(suite, index)
    stock = ControlEnv(bddl_file_name=str(task.bddl_file), has_offscreen_renderer=False, use_camera_obs=False)
    stock.seed(0)
    stock.reset()
    stock.set_init_state(load_init_states(task)[3])
    expected = []
    for action in _actions(20):
        stock.step(action)
        expected.append(stock.get_sim_state())
    np.testing.assert_array_equal(ours.sim_model.body_pos, stock.sim.model.body_pos)
    np.testing.assert_array_equal(_rollout(ours), np.array(expected))


def test_an_episode_does_not_depend_on_what_was_played_before(env: LiberoEnvironment) -> None:
    first = _rollout(env)
    _rollout(env, init_state=7)
    np.testing.assert_array_equal(_rollout(env), first)


def test_looking_does_not_touch_the_physics(env: LiberoEnvironment) -> None:
    np.testing.assert_array_equal(_rollout(env, look=True), _rollout(env))


def test_creation_leaves_numpys_global_generator_alone() -> None:
    np.random.seed(5)
    expected = np.random.RandomState(5).rand(3)
    LiberoEnvironment("libero_object", BBQ).close()
    np.testing.assert_array_equal(np.random.rand(3), expected)


def test_images_are_stock_pictures_turned_by_180_degrees(env: LiberoEnvironment) -> None:
    env.reset(0)
    images = env.observe().images
    stock = [env.libero.sim.render(64, 64, camera_name=name) for name in CAMERAS]
    assert images is not None
    for ours, theirs in zip(images, stock, strict=True):
        np.testing.assert_array_equal(ours, theirs[::-1, ::-1])
    # Right way up for the policy: the robot's base is at the top, the floor below.
    assert images[0][:20].std() > images[0][-20:].std()


def test_target_masks_are_the_instance_masks_of_the_targets(env: LiberoEnvironment) -> None:
    assert env.target_instances == ["bbq_sauce_1", "basket_1"]
    env.reset(0)
    masks = env.observe(images=False, masks=True).masks
    instances = env.instance_masks()
    assert masks is not None
    np.testing.assert_array_equal(masks, np.isin(instances, env.target_labels()))
    for view in range(2):
        assert (instances[view] == env.target_labels()[0]).sum() > 5


def test_a_mask_follows_its_object(env: LiberoEnvironment) -> None:
    env.reset(0, settle_steps=0)
    before = env.instance_masks()[0] == env.target_labels()[0]
    env.reset(0, target_shift=(0.0, 0.04), settle_steps=0)
    after = env.instance_masks()[0] == env.target_labels()[0]
    # The base camera faces the robot: world +y is to the left once the picture is the right way up.
    assert np.nonzero(after)[1].mean() < np.nonzero(before)[1].mean() - 1


def test_an_invisible_target_gives_an_empty_mask(env: LiberoEnvironment) -> None:
    env.reset(0)
    for name in env.target_instances:
        env.placement.move(name, np.array([-5.0, 0.0]))
    observation = env.observe(images=False, masks=True)
    assert observation.masks is not None
    assert not observation.masks.any()


def test_success_is_seen_when_the_target_is_in_the_basket(env: LiberoEnvironment) -> None:
    env.reset(0)
    assert not env.success()
    address, basket = (env.placement.qpos_address(name) for name in env.target_instances)
    env.sim_data.qpos[address : address + 2] = env.sim_data.qpos[basket : basket + 2]
    env.sim_data.qpos[address + 2] += 0.02
    idle = np.array([0, 0, 0, 0, 0, 0, -1.0])
    assert any(env.step(idle) for _ in range(10))


@pytest.mark.parametrize(
    ("index", "targets"), [(0, {"wooden_cabinet_1"}), (5, {"plate_1"})], ids=["drawer region", "table region"]
)
def test_regions_of_libero_goal_map_to_instances(index: int, targets: set[str]) -> None:
    env = LiberoEnvironment("libero_goal", index)
    assert set(env.target_instances) == targets


def test_an_unknown_initial_state_names_the_range(env: LiberoEnvironment) -> None:
    with pytest.raises(SimulationError, match="0 to 49"):
        env.reset(50)


def test_a_shift_onto_a_neighbour_is_refused(env: LiberoEnvironment) -> None:
    with pytest.raises(SimulationError, match="within 3 cm of salad_dressing_1"):
        env.reset(0, target_shift=(0.06, -0.09))


def test_a_shift_without_room_for_the_hand_is_refused(env: LiberoEnvironment) -> None:
    """The bottle beside it is 3 cm clear of the target, but taller, and within the hand's breadth of 20 cm."""
    with pytest.raises(SimulationError, match="the hand would touch salad_dressing_1"):
        env.reset(0, target_shift=(0.045, -0.004))


def test_sampled_shifts_are_clear_within_range_and_repeat(env: LiberoEnvironment) -> None:
    def draw() -> list[tuple[float, float]]:
        rng = np.random.default_rng(1)
        return [env.sample_target_shift(0, rng, 0.02, 0.06) for _ in range(5)]

    shifts = draw()
    assert shifts == draw()
    assert all(0.02 <= max(abs(x), abs(y)) <= 0.06 for x, y in shifts)
    env.reset(0, target_shift=shifts[0])
