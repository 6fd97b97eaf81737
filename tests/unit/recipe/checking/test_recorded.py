"""What datasets were recorded with, alone and together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.errors import DataError
from pokevla.recipe.checking.datasets import read_dataset_info
from pokevla.recipe.checking.recorded import Recorded, read_recorded, united
from tests.toys import write_dataset_info

WHERE = Path("dataset.json")


def test_values_come_back_as_they_were_written() -> None:
    for recorded in (Recorded(), Recorded((128,), (False, True), ("file", "task")), Recorded(instructions=("task",))):
        assert read_recorded(json.loads(json.dumps(recorded.to_dict())), WHERE) == recorded


def test_together_they_hold_every_value_and_nothing_is_known_that_one_does_not_tell() -> None:
    first, second = Recorded((256,), (False,), ("task",)), Recorded((128, 256), None, ("file",))
    assert united([first, second]) == Recorded((128, 256), None, ("file", "task"))
    assert united([]) == Recorded()


def test_datasets_from_before_it_was_recorded_are_read(tmp_path: Path) -> None:
    write_dataset_info(tmp_path)
    assert read_dataset_info(tmp_path).recorded == Recorded()
    write_dataset_info(tmp_path, recorded={"image_size": [64]})
    assert read_dataset_info(tmp_path).recorded == Recorded((64,))


@pytest.mark.parametrize("damage", [7, [], {"image_size": 64}, {"image_size": [True]}, {"instructions": []}])
def test_other_types_are_refused(damage: object) -> None:
    with pytest.raises(DataError, match=r"dataset\.json is damaged"):
        read_recorded(damage, WHERE)
