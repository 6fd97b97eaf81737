import dataclasses
import json

import pytest

from pokevla.errors import DataError
from pokevla.evaluation.trial_records import (
    TrialRecord,
    append_record,
    read_records,
    rewrite_records,
    summarise,
)

RECORD = TrialRecord(
    policy="trained", suite="libero_object", task_index=3, task="pick_up", trial=0, init_state_index=30,
    target_shift=(0.03, -0.02), outcome="success", steps=120, queries=15, seconds=4.5,
)  # fmt: skip


def test_records_come_back_as_they_were_written(tmp_path) -> None:
    path = tmp_path / "episodes.jsonl"
    crashed = dataclasses.replace(RECORD, outcome="crashed", target_shift=None, error="code -9")
    append_record(path, RECORD)
    append_record(path, crashed)
    assert read_records(path) == [RECORD, crashed]


def test_records_from_before_perturbations_have_none(tmp_path) -> None:
    path = tmp_path / "episodes.jsonl"
    perturbed = dataclasses.replace(RECORD, perturbation="Camera Viewpoints", level=3)
    append_record(path, perturbed)
    assert read_records(path) == [perturbed]
    line = {name: value for name, value in dataclasses.asdict(RECORD).items() if name not in ("perturbation", "level")}
    path.write_text(json.dumps(line) + "\n")
    assert read_records(path) == [RECORD]


def test_half_a_last_line_is_left_out_and_goes_when_the_file_is_rewritten(tmp_path) -> None:
    path = tmp_path / "episodes.jsonl"
    append_record(path, RECORD)
    with path.open("a") as file:
        file.write('{"policy": "tra')
    assert read_records(path) == [RECORD]
    rewrite_records(path, read_records(path))
    append_record(path, RECORD)
    assert len(read_records(path)) == 2


def test_a_damaged_line_is_named(tmp_path) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text('{"policy": 1}\n')
    with pytest.raises(DataError, match=r"episodes\.jsonl:1"):
        read_records(path)


def test_a_crash_is_never_counted_as_failure() -> None:
    crashed = dataclasses.replace(RECORD, outcome="crashed", init_state_index=31)
    failed = dataclasses.replace(RECORD, outcome="failure", init_state_index=32, steps=200)
    row = summarise([RECORD, crashed, failed])["trained"]
    assert (row["successes"], row["trials"], row["crashed"], row["mean_steps"]) == (1, 2, 1, 160)
