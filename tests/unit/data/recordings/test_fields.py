from __future__ import annotations

import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.data.recordings.fields import (
    Column,
    FieldSource,
    build_embodiment,
    column_names,
    gather,
    parse_camera,
    parse_field,
    parse_gripper,
    plain_name,
    resolve_fields,
)
from pokevla.data.recordings.lerobot.video import import_av
from pokevla.data.recordings.rlds.tfrecord import import_crc32c
from pokevla.embodiment.description import Gripper
from pokevla.errors import DataError, EnvironmentSetupError, UsageError

KNOWN = {"state": Column(8, tuple("abcdefgh"), "rad"), "pose": Column(6), "u": Column(3, ("x", "y"))}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("observation.state", FieldSource("state", "observation.state")),
        ("joints=observation.state[0:7]@rad", FieldSource("joints", "observation.state", 0, 7, "rad")),
        ("state[3:]", FieldSource("state", "state", 3)),
        ("state[:3]@0.05 m", FieldSource("state", "state", 0, 3, "0.05 m")),
        ("observation/eef pose", FieldSource("eef_pose", "observation/eef pose")),
    ],
)
def test_a_field_as_it_is_written(text: str, field: FieldSource) -> None:
    assert parse_field("--state", text) == field


@given(st.text(max_size=30))
def test_any_text_is_a_field_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert parse_field("--state", text).source
    with suppress(UsageError):
        assert all(parse_camera(text))
    with suppress(UsageError):
        parse_gripper(text, ("a",), 3)
    assert plain_name(text)


def test_columns_are_taken_in_the_order_of_the_fields() -> None:
    fields = resolve_fields("--state", [parse_field("--state", t) for t in ("g=state[7:8]", "pose[0:2]@m")], KNOWN, "x")
    assert [(f.start, f.stop, f.unit) for f in fields] == [(7, 8, "rad"), (0, 2, "m")]  # the source's unit, the user's
    arrays = {"state": np.arange(16).reshape(2, 8), "pose": -np.arange(12).reshape(2, 6)}
    assert gather(fields, arrays).tolist() == [[7, 0, -1], [15, -6, -7]]
    assert column_names(fields, KNOWN) == ()  # `pose` has no names
    assert column_names(fields[:1], KNOWN) == ("h",)
    assert column_names([FieldSource("u", "u", 0, 3)], KNOWN) == ()  # names that do not fit the width


def test_grippers_by_number_and_by_name() -> None:
    assert parse_gripper("7=1,0", (), 8) == Gripper(7, 1.0, 0.0)
    assert parse_gripper("b=-1,1e2", ("a", "b"), 2) == Gripper(1, -1.0, 100.0)


def test_an_inconsistent_robot_is_refused() -> None:
    twice = [FieldSource("j", "state", 0, 2, "rad"), FieldSource("j", "state", 2, 4, "rad")]
    with pytest.raises(DataError, match="the proprio field 'j' occurs twice"):
        build_embodiment("r", ["base"], twice, twice[:1], [], "absolute_joint", 10.0)
    with pytest.raises(DataError, match="gripper column 9 should be one of 0 to 1"):
        build_embodiment("r", ["base"], twice[:1], twice[:1], [Gripper(9, 1, 0)], "absolute_joint", 10.0)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, load in (("av", import_av), ("google_crc32c", import_crc32c)):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(EnvironmentSetupError, match=r"not installed. Install it with: pip install 'pokevla\[rec"):
            load()
