"""A read that never ends becomes an error with the name of the file, in both kinds of loader."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pokevla.data.loader import TrainLoader
from pokevla.data.loading.memory import Allocate, page_aligned
from pokevla.data.loading.process_loader import DataProcess, ProcessLoader
from pokevla.data.loading.watch import Watch, WatchedMaker, answer_within
from pokevla.errors import DataError
from pokevla.files.remote.urls import UrlPath
from pokevla.shards.reading import ReadLog
from pokevla.shards.shard_reader import Shards
from tests.unit.data.loading.toy_batches import make_robot_batch
from tests.unit.shards.toy_shards import make_shard

HANGS_AT = 4


def open_hanging(folder: str) -> WatchedMaker:
    """Batches that read a shard; the one of position HANGS_AT reads another, whose file system hangs."""
    log = ReadLog()
    shards = Shards(Path(folder), "Make it again.", log=log)

    def make(positions: np.ndarray, allocate: Allocate) -> Any:
        name = "hangs-00000.tar" if HANGS_AT in positions else "a-00000.tar"
        shards.read_sample(name, shards.index("a-00000.tar")[0])
        return make_robot_batch(positions, allocate)

    return WatchedMaker(make, Watch(log, timeout_s=0.5))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Shards, of which one is a FIFO that nobody writes to: opening it waits as on a file system that hangs."""
    make_shard(tmp_path)
    hanging = tmp_path / "hangs-00000.tar"
    os.mkfifo(hanging)
    yield tmp_path
    os.close(os.open(hanging, os.O_RDWR | os.O_NONBLOCK))  # lets the thread of the test go on


def test_the_loaders_process_reports_it(folder: Path) -> None:
    begun = time.monotonic()
    with ProcessLoader(
        DataProcess(3), open_hanging, (str(folder),), rank=0, world_size=1, micro=2, prefetch=3
    ) as loader:
        assert [next(loader).positions.tolist() for _ in range(2)] == [[0, 1], [2, 3]]
        with pytest.raises(
            DataError, match=r"hangs-00000\.tar has taken .* s and has not ended.*data\.storage\.timeout_s"
        ):
            next(loader)
        assert next(loader).positions.tolist() == [6, 7], "the other thread goes on"
    assert time.monotonic() - begun < 60


def test_the_loaders_threads_report_it(folder: Path) -> None:
    made = open_hanging(str(folder))
    with TrainLoader[Any](
        lambda positions: made(positions, page_aligned), rank=0, world_size=1, micro=2, threads=2, watch=made.watch
    ) as loader:
        assert [next(loader).positions.tolist() for _ in range(2)] == [[0, 1], [2, 3]]
        with pytest.raises(DataError, match=r"hangs-00000\.tar has taken"):
            next(loader)


def test_requests_have_their_own_time_outs() -> None:
    log = ReadLog()
    log.begin(UrlPath("s3:/bucket/a.tar"))
    assert Watch(log, timeout_s=0.0).overdue() == {}
    log.end(is_remote=True)
    assert log.take_slowest().shard == "s3://bucket/a.tar"
    assert log.take_slowest().shard == ""


def test_result_and_error_are_those_of_the_call() -> None:
    assert answer_within(5.0, Path("/data/toy"), lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        answer_within(5.0, Path("/data/toy"), lambda: 1 // 0)


def test_a_call_that_does_not_end_names_the_path() -> None:
    end = threading.Event()
    with pytest.raises(DataError, match=r"Opening /data/toy has taken 0 s and has not ended.*data\.storage\.timeout_s"):
        answer_within(0.1, Path("/data/toy"), end.wait)
    end.set()
