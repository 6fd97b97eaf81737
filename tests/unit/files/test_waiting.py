"""A call that does not end becomes an error; one that ends gives its result or its error."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pokevla.errors import DataError
from pokevla.files.waiting import answer_within

PATH = Path("/data/toy")


def test_result_and_error_are_those_of_the_call() -> None:
    assert answer_within(5.0, PATH, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        answer_within(5.0, PATH, lambda: 1 // 0)


def test_a_call_that_does_not_end_names_the_path() -> None:
    end = threading.Event()
    with pytest.raises(DataError, match=r"Opening /data/toy has taken 0 s and has not ended.*data\.storage\.timeout_s"):
        answer_within(0.1, PATH, end.wait)
    end.set()
