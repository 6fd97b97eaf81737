import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pokevla.errors import DataError
from pokevla.policy.replay import ReplayPolicy
from tests.toys import write_dataset_info
from tests.unit.embodiment.robots import TWO_HANDED


@pytest.fixture
def dataset(tmp_path):
    actions = [[[e + 0.1 * t] * 6 + [1.0] for t in range(5)] for e in (4, 7)]
    parquet.write_table(pa.table({"episode": [4, 7], "executed_actions": actions}), tmp_path / "episodes.parquet")
    write_dataset_info(tmp_path)
    return tmp_path


def test_each_trial_gets_the_actions_of_its_own_step(dataset) -> None:
    policy = ReplayPolicy.from_dataset(dataset, 7, chunk_length=2)
    actions = policy.act(None, np.zeros((2, 8)), ["a", "b"], [0, 2])
    assert actions.shape == (2, 2, 7)
    assert actions[:, 0, 0] == pytest.approx([7.0, 7.2])


def test_after_its_end_it_stands_still_with_the_gripper_as_it_was(dataset) -> None:
    policy = ReplayPolicy.from_dataset(dataset, 4, chunk_length=4)
    chunk = policy.act(None, np.zeros((1, 8)), ["a"], [3])[0]
    assert chunk[2:].tolist() == [[0.0] * 6 + [1.0]] * 2


def test_a_robot_of_absolute_targets_keeps_its_last_one() -> None:
    actions = np.arange(18.0).reshape(2, 9)
    chunk = ReplayPolicy(actions, TWO_HANDED, chunk_length=3).act(None, np.zeros((1, 10)), ["a"], [1])[0]
    assert chunk.tolist() == [actions[1].tolist()] * 3


def test_an_episode_that_is_not_there_is_named(dataset) -> None:
    with pytest.raises(DataError, match="no episode 5"):
        ReplayPolicy.from_dataset(dataset, 5, 8)


def test_a_missing_dataset_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"dataset\.json"):
        ReplayPolicy.from_dataset(tmp_path / "none", 0, 8)
