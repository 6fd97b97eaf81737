"""The loader's process gives the batches that threads give, and the end of either side is noticed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pokevla.data.batch import RobotBatch
from pokevla.data.loader import TrainLoader
from pokevla.data.loading.memory import PAGE_BYTES, page_aligned
from pokevla.data.loading.process_loader import SPARE_SLOTS, DataProcess, ProcessLoader
from pokevla.errors import DataError, TrainingError
from tests.unit.data.loading.toy_batches import make_robot_batch, open_toy


def loader_of(kind: str, *, rank: int = 0, world_size: int = 1, start: int = 0, **options: Any) -> ProcessLoader:
    options = {"micro": 2, "threads": 2, "prefetch": 3, **options}
    return ProcessLoader(
        DataProcess(options["prefetch"]),
        open_toy,
        (kind,),
        rank=rank,
        world_size=world_size,
        start_position=start,
        **options,
    )


def same(one: RobotBatch, other: RobotBatch) -> bool:
    tensors = ("positions", "pixel_values", "input_ids", "attention_mask", "proprio", "actions", "crop_boxes")
    equal = all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)
    features = [(a.values, b.values) for a, b in zip(one.features.values(), other.features.values(), strict=True)]
    return one.keys == other.keys and equal and all(torch.equal(a, b) for a, b in features)


@pytest.mark.parametrize(("rank", "world_size", "start"), [(0, 1, 0), (1, 2, 8)])
@pytest.mark.parametrize("kind", ["good", "growing"])
def test_batches_are_those_of_threads(kind: str, rank: int, world_size: int, start: int) -> None:
    make = open_toy(kind)
    shared = {"rank": rank, "world_size": world_size}
    with (
        TrainLoader[Any](lambda p: make(p, page_aligned), micro=2, start_position=start, **shared) as threads,
        loader_of(kind, start=start, **shared) as process,
    ):
        for _ in range(20):
            assert same(next(threads), next(process))
            assert threads.position == process.position


def test_a_batch_stays_as_it_is_while_it_is_held() -> None:
    with loader_of("growing") as loader:
        held = [next(loader) for _ in range(SPARE_SLOTS)]
        for number, batch in enumerate(held):
            positions = np.arange(2 * number, 2 * number + 2)
            assert same(batch, make_robot_batch(positions, page_aligned, 2 * number + 8))
        pixels = held[3].pixel_values
        del held, batch
        for _ in range(40):
            next(loader)
        assert pixels.unique().tolist() == [6, 7]
    assert pixels.unique().tolist() == [6, 7], "also after the process has ended"


def test_holding_more_batches_than_there_are_slots_is_an_error_and_not_a_hang() -> None:
    with loader_of("good", prefetch=2) as loader, pytest.raises(RuntimeError, match="batches of the loader are held"):
        _held = [next(loader) for _ in range(SPARE_SLOTS + 3)]


def test_pictures_and_features_lie_in_the_slot_at_a_page() -> None:
    with loader_of("good", prefetch=1) as loader:
        for _ in range(3):  # the first batch says how large a slot has to be
            batch = next(loader)
        assert batch.pixel_values.data_ptr() % PAGE_BYTES == 0
        assert batch.features["sam"].values.data_ptr() % PAGE_BYTES == 0
    assert page_aligned((3, 5), np.int16).ctypes.data % PAGE_BYTES == 0


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("named", DataError, "shard is corrupted Make it again"),
        ("bug", RuntimeError, "ZeroDivisionError: toy"),
        ("killed", TrainingError, r"data loader \(process \d+\) was killed by SIGKILL"),
    ],
)
def test_an_error_arrives_at_the_turn_of_its_sample(kind: str, error: type[Exception], words: str) -> None:
    with loader_of(kind, prefetch=1, threads=1) as loader:
        assert [int(next(loader).positions[0]) for _ in range(2)] == [0, 2]
        with pytest.raises(error, match=words):
            next(loader)


def test_data_that_cannot_be_opened_is_the_error_of_the_first_batch() -> None:
    with loader_of("cannot open") as loader, pytest.raises(DataError, match=r"damaged\. Convert it again"):
        next(loader)


def test_nothing_is_left_behind() -> None:
    def files() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = files()
    with loader_of("good") as loader:
        next(loader)
        pid = loader._process.pid
    assert not Path(f"/proc/{pid}").exists()
    with DataProcess(2):
        pass  # ends without ever having been used
    assert files() == before


def test_signals_to_stop_are_left_to_the_rank() -> None:
    with loader_of("good") as loader:
        next(loader)
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            os.kill(loader._process.pid, number)
        assert int([next(loader) for _ in range(8)][-1].positions[0]) == 16


def test_waking_the_process_does_not_interrupt_the_rank() -> None:
    before = os.sched_getscheduler(0)  # not SCHED_OTHER if the tests themselves run at another priority
    with loader_of("good") as loader:
        next(loader)
        threads = [int(path.name) for path in Path(f"/proc/{loader._process.pid}/task").iterdir()]
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}
    assert os.sched_getscheduler(0) == before


def test_the_process_ends_with_a_rank_that_is_killed(tiny_run_env: dict[str, str]) -> None:
    code = (
        "import os, sys, time\n"
        "from tests.unit.data.loading.test_process_loader import loader_of\n"
        "loader = loader_of('good'); next(loader); print(loader._process.pid, flush=True); time.sleep(60)"
    )
    rank = subprocess.Popen([sys.executable, "-c", code], env=tiny_run_env, stdout=subprocess.PIPE, text=True)
    assert rank.stdout is not None
    pid = int(rank.stdout.readline())
    rank.kill()
    rank.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "zombie" in Path(f"/proc/{pid}/status").read_text())


def wait_until(is_true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)
