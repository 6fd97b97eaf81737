"""Cost of a save for the loop, against DeepSpeed's plain `save_checkpoint`; consolidation against `zero_to_fp32`.

    python benchmarks/checkpoint.py [--quick] [--parameters N] [--out DIR] [--json PATH]

First all ways to save, alternating, on one engine; then the measurements of benchmarks/consolidation.py, at the same
size.

Two ranks, ZeRO 2, fp32: weights, master copies and both AdamW moments are written. `blocked` is the wall time until
both ranks can continue training. `with ten steps` is the time of a save and ten steps until the checkpoint is complete;
it includes the slowdown of the steps by background writing (on a GPU these CPU cores are idle). Plain `save_checkpoint`
does not sync, check or commit. The second row adds an fsync of its files, which is needed to survive a power failure.
Best of several rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from consolidation import compare as compare_consolidation
from forked_ranks import run_ranks
from reporting import report, row
from torch import nn

from pokevla.checkpoint.background import save_in_background
from pokevla.checkpoint.staging import StagingBuffer
from pokevla.checkpoint.store import save_checkpoint
from pokevla.distributed.collectives import barrier
from pokevla.distributed.engine import initialise_engine, join_ranks, leave_ranks
from pokevla.distributed.environment import RankInfo
from pokevla.runs.checkpoints import CheckpointInfo

WIDTH = 1024
STEPS = 10
PLAIN, SYNCED, OURS, BEHIND = "plain save_checkpoint", "plain, then fsync", "ours", "ours, in the background"
CONFIG = {
    "train_batch_size": 16,
    "train_micro_batch_size_per_gpu": 8,
    "gradient_accumulation_steps": 1,
    "bf16": {"enabled": False},
    "zero_optimization": {"stage": 2},
    "steps_per_print": 2**31 - 1,
}


class Bench:
    """One engine and the ways to save it. All ranks call every method."""

    def __init__(self, parameters: int, out: Path) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(max(1, parameters // WIDTH**2))))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.engine = initialise_engine(model, optimizer, CONFIG)
        self.own_writer = self.engine.checkpoint_engine
        self.out, self.buffer = out, StagingBuffer()
        self.step()

    def step(self) -> None:
        """Run one training step."""
        self.engine.backward(self.engine(torch.ones(8, WIDTH)).square().mean())
        self.engine.step()

    def plain(self, number: int) -> None:
        """Save with DeepSpeed."""
        self.engine.checkpoint_engine = self.own_writer
        self.engine.__dict__.pop("_copy_recovery_script", None)  # ours omits it
        self.engine.save_checkpoint(str(self.out / "plain"), tag=str(number))
        barrier()

    def synced(self, number: int) -> None:
        """Save with DeepSpeed, then fsync."""
        self.plain(number)
        for path in sorted((self.out / "plain" / str(number)).iterdir())[self.engine.global_rank :: 2]:
            with path.open("rb") as file:
                os.fsync(file.fileno())
        barrier()

    def ours(self, number: int) -> None:
        """Save with our store: synced, with checksums, atomic."""
        save_checkpoint(self.engine, self.out / "ours", self._info(number))

    def behind(self, number: int) -> Callable[[], object]:
        """Save with our store in the background. Returns the function that completes the save."""
        return save_in_background(self.engine, self.out / "ours", self._info(number), self.buffer).finish

    def _info(self, number: int) -> CheckpointInfo:
        return CheckpointInfo(number, number, 2, 2, "fp32", "-", "-")

    def time(self, save: Callable[[int], Callable[[], object] | None], number: int) -> tuple[float, float, float]:
        """(seconds blocked, seconds with ten steps until complete, MiB written) of one save."""
        barrier()
        if self.engine.global_rank == 0:
            os.sync()  # do not measure writes of earlier rounds
        barrier()
        started = time.perf_counter()
        complete = save(number)
        barrier()
        blocked = time.perf_counter() - started
        for _ in range(STEPS):
            self.step()
        if complete is not None:
            complete()
        barrier()
        total = time.perf_counter() - started
        written = sum(path.stat().st_size for path in self.out.rglob("*") if path.is_file()) / 2**20
        barrier()
        if self.engine.global_rank == 0:
            for folder in self.out.iterdir():
                shutil.rmtree(folder)
        return blocked, total, written


def work(info: RankInfo, parameters: int, rounds: int, out: Path) -> None:
    """Save in every way, alternating. Rank 0 writes the measurements to `out`.json."""
    join_ranks(info)
    bench = Bench(parameters, out)
    ways: dict[str, Callable[[int], Any]] = {
        PLAIN: bench.plain,
        SYNCED: bench.synced,
        OURS: bench.ours,
        BEHIND: bench.behind,
    }
    measured: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, save in ways.items():
            times = bench.time(save, number)
            if number > 0:  # the first round warms up
                measured[name].append(times)
    if info.is_main:
        out.with_suffix(".json").write_text(json.dumps(measured), encoding="utf-8")
    leave_ranks()


def rows_of(measured: dict[str, list[list[float]]]) -> list[dict[str, Any]]:
    """Rows with the best of all rounds, relative to plain `save_checkpoint`."""
    best = {name: [min(values) for values in zip(*times, strict=True)] for name, times in measured.items()}
    rows = []
    for index, what in enumerate(("blocked", "with ten steps")):
        for name, values in best.items():
            rows.append(
                row(f"{name}: {what}", values[index], "s", f"{PLAIN}: {what}", values[index] / best[PLAIN][index])
            )
    return [*rows, row("size of a checkpoint", best[OURS][2], "MiB", PLAIN, best[OURS][2] / best[PLAIN][2])]


def main() -> None:
    """Measure, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 4 million parameters")
    parser.add_argument("--parameters", type=int, default=40_000_000, help="size of the model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="folder on the run's disk; default: a temporary one")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    parameters, rounds = (4_000_000, 2) if arguments.quick else (arguments.parameters, arguments.rounds)
    with tempfile.TemporaryDirectory(dir=arguments.out) as temporary:
        out = Path(temporary) / "saves"
        out.mkdir()
        run_ranks(2, partial(work, parameters=parameters, rounds=rounds, out=out))
        rows = rows_of(json.loads(out.with_suffix(".json").read_text(encoding="utf-8")))
        stages, repeats = ((2,), 1) if arguments.quick else ((2, 3), 3)
        for stage in stages:
            rows += compare_consolidation(Path(temporary), stage, parameters, repeats)
    print(f"{parameters:,} parameters, 2 ranks, ZeRO 2, fp32, best of {rounds}")
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
