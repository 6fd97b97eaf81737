"""The comparison of `benchmarks/equal_behaviour.py`."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.comparison import REFUSED, Row, compare, print_rows

LOSSES = [[1, 0.1], [2, 0.2], [3, 0.3]]


def verdict(base: Any, new: Any, *, may_refuse: bool = False) -> str:
    (row,) = compare("step", {"value": base}, {"value": new}, may_refuse=may_refuse)
    return row.equal


@pytest.mark.parametrize(
    "value", ["hash", 3, math.nan, LOSSES, [[1, math.nan]], {"images": "ab", "actions": "cd"}, None]
)
def test_a_value_equals_itself(value: Any) -> None:
    assert verdict(value, value) == "yes"


def test_the_last_bit_of_one_loss_is_a_difference_and_its_step_is_named() -> None:
    changed = [[1, 0.1], [2, math.nextafter(0.2, 1.0)], [3, 0.3]]
    assert verdict(LOSSES, changed) == "NO: first at [2, 0.2] / [2, 0.20000000000000004]"


def test_a_failure_is_shown_in_full_in_place_of_a_value() -> None:
    failure = "failed: probe: cache.root has no cache for this dataset (exit code 3, commands.log)"
    difference = verdict({"images": "ab"}, failure)
    assert difference.startswith("NO: 1 fields ")
    assert difference.endswith(f" / {failure}")


def test_a_shorter_series_is_a_difference() -> None:
    assert verdict(LOSSES, LOSSES[:2]) == "NO: 3 / 2 values"


def test_a_sample_may_rename_its_fields() -> None:
    assert verdict({"sam.values": "ab", "actions": "cd"}, {"features.sam.values": "ab", "actions": "cd"}) == "yes"


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"images": "ab", "actions": "ee"}, "only in BASE actions; only in NEW actions"),
        ({"images": "ab"}, "only in BASE actions; only in NEW -"),
        ({"images": "ab", "actions": "cd", "depth": "ff"}, "only in BASE -; only in NEW depth"),
    ],
)
def test_a_changed_missing_or_new_field_of_a_sample_is_named(changed: dict[str, str], difference: str) -> None:
    assert verdict({"images": "ab", "actions": "cd"}, changed) == f"NO: {difference}"


def test_a_field_that_a_sample_holds_once_less_is_a_difference() -> None:
    assert verdict({"base": "ab", "wrist": "ab"}, {"base": "ab", "wrist": "cd"}).startswith("NO")
    assert verdict({"base": "ab", "wrist": "ab"}, {"base": "ab"}).startswith("NO")


def test_a_value_that_one_commit_lacks_is_a_difference() -> None:
    rows = compare("step", {"loss": 1.0, "kl": 2.0}, {"loss": 1.0, "focal": 3.0})
    assert rows == [
        Row("step: loss", "1.0", "1.0", "yes"),
        Row("step: kl", "2.0", "absent", "NO: absent"),
        Row("step: focal", "absent", "3.0", "NO: absent"),
    ]


def test_a_refusal_is_a_difference_except_where_files_of_another_commit_are_read() -> None:
    refusal = f"{REFUSED}cache has format 1. Rebuild it with: pokevla cache build RECIPE"
    assert verdict("accepted", refusal).startswith("NO")
    assert verdict("accepted", refusal, may_refuse=True) == refusal
    assert verdict("accepted", "failed: KeyError", may_refuse=True).startswith("NO")


def test_the_exit_code_and_the_last_line_tell_whether_anything_differs(capsys: pytest.CaptureFixture[str]) -> None:
    same = compare("step", {"loss": LOSSES}, {"loss": LOSSES})
    assert print_rows(same, ("main", "branch")) == 0
    header, row, last = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in header.split("|")] == ["what", "main", "branch", "equal"]
    assert row.startswith("step: loss | 3 values ")
    assert last == "1 rows, 0 not equal"

    refused = compare("cache", {"files": "accepted"}, {"files": f"{REFUSED}old"}, may_refuse=True)
    assert print_rows([*same, *refused], ("main", "branch")) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 rows, 0 not equal, 1 refused with a remedy"

    different = compare("step", {"loss": LOSSES}, {"loss": LOSSES[:1]})
    assert print_rows([*same, *different], ("main", "branch")) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "2 rows, 1 not equal"
