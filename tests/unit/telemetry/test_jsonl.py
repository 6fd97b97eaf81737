"""JSON lines that survive a crash."""

import json
import os
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.errors import DataError
from pokevla.telemetry.follow import JsonlFollower
from pokevla.telemetry.jsonl import EVENTS, MAX_LINE_BYTES, EventLog, JsonlWriter, read_jsonl


def test_lines_are_on_disk_as_soon_as_written(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "deep" / "m.jsonl")
    writer.write({"step": 1, "loss": 0.5})

    assert read_jsonl(tmp_path / "deep" / "m.jsonl") == [{"step": 1, "loss": 0.5}]
    writer.close()


def test_resume_drops_later_steps_so_that_curves_do_not_fold_back(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with JsonlWriter(path) as writer:
        for step in range(1, 14):
            writer.write({"step": step})

    with JsonlWriter(path, resume_step=10) as writer:
        writer.write({"step": 11, "again": True})

    rows = read_jsonl(path)
    assert [row["step"] for row in rows] == list(range(1, 12))
    assert rows[-1]["again"] is True


def test_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')

    assert read_jsonl(path) == [{"step": 1}]
    with JsonlWriter(path) as writer:
        writer.write({"step": 2})
    assert [row["step"] for row in read_jsonl(path)] == [1, 2]


def test_damage_elsewhere_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\nrubbish\n{"step": 3}\n')

    with pytest.raises(DataError, match=r"m\.jsonl:2 is damaged: not JSON"):
        read_jsonl(path)


def test_opening_without_need_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1}\n')
    before = path.stat().st_ino

    JsonlWriter(path, resume_step=1).close()

    assert path.stat().st_ino == before


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    with JsonlWriter(tmp_path / "m.jsonl") as writer:
        writer.write({"step": 1, "loss": float("nan"), "deep": {"x": [float("inf"), 1.0]}})

    assert read_jsonl(tmp_path / "m.jsonl") == [{"step": 1, "loss": None, "deep": {"x": [None, 1.0]}}]


@given(rows=st.lists(st.integers(0, 50)), cut=st.integers(0, 400), resume=st.integers(0, 50))
def test_any_crash_point_keeps_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, rows: list[int], cut: int, resume: int
) -> None:
    path = tmp_path_factory.mktemp("crash") / "m.jsonl"
    text = "".join(json.dumps({"step": step}) + "\n" for step in rows)[:cut]
    path.write_text(text)

    JsonlWriter(path, resume_step=resume).close()

    whole = rows[: text.count("\n")]
    assert [row["step"] for row in read_jsonl(path)] == [step for step in whole if step <= resume]


def test_events_carry_their_time(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.add("saved", step=3)
    log.close()

    (event,) = read_jsonl(tmp_path / "events.jsonl")
    assert (event["event"], event["step"]) == ("saved", 3)
    assert event["time"].endswith("+00:00")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"[1]", "not an object"),
        (b'{"step": "5"}', "step is '5'"),
        (b'{"step": true}', "step is True"),
        (b'{"time": 5}', "time is 5"),
        (b'{"loss": NaN}', "NaN"),
        (b"[" * 5000, "nested too deeply"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"x" * (MAX_LINE_BYTES + 10), "longer than"),
    ],
)
def test_a_damaged_line_is_named_and_a_resume_goes_on_with_it(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n{"step": 4}\n{"st')

    with pytest.raises(DataError, match=f"m.jsonl:2 is damaged: .*{reason}"):
        read_jsonl(path)
    with JsonlWriter(path, resume_step=3) as writer:
        writer.write({"step": 4, "again": True})

    assert path.read_bytes() == b'{"step": 1}\n' + line + b'\n{"step": 3}\n{"step": 4, "again": true}\n'


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        read_jsonl(tmp_path / "m.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        JsonlFollower(tmp_path / "m.jsonl")


def test_text_that_is_not_utf_8_is_written_as_an_escape(tmp_path: Path) -> None:
    with JsonlWriter(tmp_path / "m.jsonl") as writer:
        writer.write({"path": os.fsdecode(b"caf\xe9")})
    assert read_jsonl(tmp_path / "m.jsonl") == [{"path": os.fsdecode(b"caf\xe9")}]


@pytest.mark.parametrize("kind", ["a folder", "a FIFO"])
def test_a_log_that_cannot_be_continued_is_set_aside_with_a_warning(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / EVENTS
    if kind == "a folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with closing(EventLog(path)) as events:
        events.add("resumed", step=4)
    assert read_jsonl(path)[-1]["step"] == 4
    assert path.with_name(f"{EVENTS}.damaged").exists()
    assert "is set aside as events.jsonl.damaged" in caplog.text
