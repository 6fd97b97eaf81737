"""Files without a description are LIBERO's; the error for an invalid one names its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.embodiment.reading import read_embodiment
from pokevla.errors import DataError
from tests.unit.embodiment.robots import TWO_HANDED


@pytest.mark.parametrize("stored", [None, {}])
def test_a_file_without_a_description_is_libero_s(stored: object) -> None:
    assert read_embodiment(stored, Path("dataset.json")) is LIBERO


def test_a_description_is_read() -> None:
    assert read_embodiment(TWO_HANDED.to_dict(), Path("dataset.json")) == TWO_HANDED


def test_a_damaged_description_names_the_file() -> None:
    with pytest.raises(DataError, match=r"data/toy/dataset\.json: the description of the embodiment is damaged"):
        read_embodiment({"schema_version": 1}, Path("data/toy/dataset.json"))
