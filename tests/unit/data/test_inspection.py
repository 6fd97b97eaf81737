"""A dataset with bad numbers, such as an earlier version wrote, is not passed off as good."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.writer import dataset_fingerprint
from pokevla.errors import DataError
from tests.toys import forget_checksums


def spoil_episode(root: Path, column: str, value: float) -> None:
    """Put `value` into row 2, column 1 of the second episode, and let `dataset.json` agree with it."""
    forget_checksums(root)
    path = root / "episodes.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[1][column][2][1] = value
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    edit_info(root, fingerprint=dataset_fingerprint(root, open_dataset(root).shard_names, None))


def edit_info(root: Path, **values: object) -> None:
    path = root / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("actions", np.nan, "episode 1: actions, row 2: column 1 is nan, not finite"),
        ("executed_actions", 6e299, "episode 1: executed_actions, row 2: column 1 is 6e+299, above the limit"),
        ("proprio", -np.inf, "episode 1: proprio, row 2: column 1 is -inf, not finite"),
    ],
)
def test_verify_and_stats_raise_the_alarm(
    robot_dataset: Callable[..., Path], capsys: pytest.CaptureFixture[str], column: str, value: float, words: str
) -> None:
    root = robot_dataset(demos=2, frames=10, side=8)
    assert run(["data", "verify", str(root)]) == run(["data", "stats", str(root)]) == 0
    capsys.readouterr()
    spoil_episode(root, column, value)
    for verb in ("verify", "stats"):
        assert run(["data", verb, str(root)]) == 3
        captured = capsys.readouterr()
        assert f"error: {root}: {words}" in captured.err
        assert ("episodes: 2" in captured.out) == (verb == "stats")  # still shown


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("q01", float("nan"), "is damaged: not JSON .NaN is not a number"),
        ("std", float("inf"), "is damaged: not JSON .Infinity is not a number"),
        ("q99", 6e299, "normalisation statistics of action, q99: column 2 is"),
    ],
)
def test_a_dataset_with_bad_statistics_is_not_opened(
    robot_dataset: Callable[..., Path], name: str, value: float, words: str
) -> None:
    root = robot_dataset(demos=2, frames=10, side=8)
    forget_checksums(root)
    statistics = json.loads((root / "dataset.json").read_text())["statistics"]
    statistics["action"][name][2] = value
    edit_info(root, statistics=statistics)
    with pytest.raises(DataError, match=rf"dataset\.json:? {words}"):
        open_dataset(root)
