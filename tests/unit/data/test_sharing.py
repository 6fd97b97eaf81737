"""Other loaders read our shards: the code of docs/sharing.md gives the bytes that our own reader gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.reader import ShardReader

PAGE = Path(__file__).resolve().parents[3] / "docs/sharing.md"


def code_of(*functions: str) -> dict[str, Any]:
    """What the Python blocks of the page that define these functions define, run in the order of the page."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        if any(f"def {function}(" in block for function in functions):
            exec(compile(block, str(PAGE), "exec"), names)
    return names


def our_samples(dataset: Dataset) -> list[tuple[str, dict[str, bytes]]]:
    reader = ShardReader(dataset)
    return [(dataset.rows.text("key", row), reader.read(row)) for row in range(len(dataset.rows))]


def test_webdataset_reads_the_bytes_that_we_read(robot_dataset: Callable[..., Path]) -> None:
    dataset = open_dataset(robot_dataset(demos=3, frames=14))
    read = list(code_of("robot_samples")["robot_samples"](dataset.root, chunk=4))
    assert [(key, members) for key, members, *_ in read] == our_samples(dataset)
    for row, (_, _, instruction, proprio, actions) in enumerate(read):
        episode, frame = dataset.rows.number("episode", row), dataset.rows.number("frame", row)
        assert instruction == dataset.rows.text("instruction", row)
        assert np.array_equal(proprio, dataset.sequences.frames("proprio", episode, frame, frame + 1)[0])
        assert np.array_equal(actions[:1], dataset.sequences.frames("actions", episode, frame, frame + 1))


def test_litdata_gives_the_same_samples(robot_dataset: Callable[..., Path], tmp_path: Path) -> None:
    litdata = pytest.importorskip("litdata")
    dataset = open_dataset(robot_dataset(demos=2, frames=10))
    code_of("robot_samples", "to_litdata")["to_litdata"](dataset.root, tmp_path / "lit")
    read = litdata.StreamingDataset(str(tmp_path / "lit"), shuffle=False)
    expected = our_samples(dataset)
    assert len(read) == len(expected)
    for sample, (key, members) in zip((read[number] for number in range(len(read))), expected, strict=True):
        assert sample["key"] == key
        assert {name: sample[name] for name in members} == members
        assert sample["actions"].shape[1] == 7
