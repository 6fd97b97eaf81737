"""Trials that were recorded stay when the disk fills up, and the evaluation goes on from them."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DiskFullError
from pokevla.evaluation.drawing.recorder import Filming, TrialRecorder
from pokevla.evaluation.running.messages import Query
from pokevla.evaluation.running.watching import Ending
from pokevla.evaluation.trial_records import TrialRecord, append_record, read_records, rewrite_records
from tests.conftest import SmallDisk
from tests.unit.evaluation.drawing.trials import NAME, TRIAL

RECORD = TrialRecord(
    policy="p", suite="s", task_index=0, task="t", trial=0, init_state_index=0, target_shift=None, outcome="success",
    steps=3, queries=1, seconds=1.0,
)  # fmt: skip


def test_recorded_trials_stay(disk_to_fill: SmallDisk) -> None:
    path = disk_to_fill.folder / "episodes.jsonl"
    appended: list[int] = []

    def append_many() -> None:
        for number in range(100):
            append_record(path, dataclasses.replace(RECORD, init_state_index=number))
            appended.append(number)
            disk_to_fill.fill()  # a few more fit into the block that the file has

    with pytest.raises(DiskFullError, match=r"No room to write .*episodes\.jsonl"):
        append_many()
    disk_to_fill.free()
    records = read_records(path)
    rewrite_records(path, records)
    append_record(path, RECORD)

    assert [record.init_state_index for record in records] == appended
    assert len(read_records(path)) == len(appended) + 1


def test_a_trial_counts_without_its_video(disk_to_fill: SmallDisk, caplog: pytest.LogCaptureFixture) -> None:
    recorder = TrialRecorder(disk_to_fill.folder, TRIAL, Filming(LIBERO, 4))
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    recorder.see(Query(0, "reach", np.zeros(8, np.float32), noise, None), None)
    disk_to_fill.fill()
    with caplog.at_level(logging.WARNING):
        assert recorder.finish(Ending("failure", 0)) == {"mask_iou": None}
    assert f"the video of {NAME} is left out: No room to write" in caplog.text
