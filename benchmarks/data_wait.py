"""Share of a step that a training waits for its data: with everything in memory, and with a slow disk.

    python benchmarks/data_wait.py [--quick] [--json PATH]

A post-training of `mini` on 2 ranks, all losses, features from a cache, in the way of `pokevla train`: its ranks, loop
and loader processes. `data_wait_share` of metrics.jsonl, over the time of the second half of the steps.

- `data_wait/warm`: data and cache are in the page cache. Goal: at most 0.01.
- `data_wait/disk_4x`, `data_wait/disk_half`: every read of a shard waits as if a disk delivered four times, or half,
  what the ranks need at their warm speed. Half of it leaves a share of 0.5 at best, which is the reference.

The disk is throttled in `os.preadv` of the benchmark's own ranks, before they fork their loader: a rank may read so
many bytes a second on average, with no credit for idle time beyond a tenth of a second. The product knows nothing of
it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.forked_ranks import run_ranks
from benchmarks.gpu_parts.toy_data import write_demonstrations
from benchmarks.reporting import report, row
from pokevla.data.dataset import open_dataset
from pokevla.data.reader import ShardReader
from pokevla.distributed.environment import RankInfo
from pokevla.features.cache_build import build_cache
from pokevla.features.cache_files import read_manifest
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import PosttrainRecipe
from pokevla.runs.creation import create_run
from pokevla.runs.directory import read_run_recipe
from pokevla.telemetry.jsonl import read_jsonl
from pokevla.telemetry.logging import setup_logging
from pokevla.telemetry.writers import METRICS
from pokevla.training.health.pulse import Pulse
from pokevla.training.health.signals import StopFlag
from pokevla.training.rank_main import train

RANKS, MICRO = 2, 4
RECIPE = """\
kind: posttrain
name: {name}
output: {work}/runs
data: {{datasets: [{{path: {work}/dataset}}], train_split: all, shuffle_window: 2}}
cache: {{root: {work}/cache}}
model: {{preset: mini}}
optim: {{lr: 1.0e-3}}
batch: {{global: {batch}, micro: {micro}}}
steps: {steps}
precision: fp32
checkpoint: {{every_steps: 1000000, keep_last: 1}}
log: {{every_steps: 1, grad_norms_every_steps: 0, sinks: [jsonl]}}
resources: {{cpu_ranks: {ranks}, threads_per_rank: 1}}
"""
BURST_S = 0.1
Preadv = Callable[..., int]


class SlowDisk:
    """Reads that wait until a disk of so many bytes a second would have delivered them. Thread-safe."""

    def __init__(self, bytes_per_s: float, read: Preadv) -> None:
        self._bytes_per_s, self._read = bytes_per_s, read
        self._lock, self._free_at = threading.Lock(), 0.0
        self.total_bytes = 0

    def preadv(self, descriptor: int, buffers: Sequence[Any], offset: int, *flags: int) -> int:
        """`os.preadv`, later."""
        count = self._read(descriptor, buffers, offset, *flags)
        with self._lock:
            self.total_bytes += count
            begun = max(self._free_at, time.monotonic() - BURST_S)
            self._free_at = begun + count / self._bytes_per_s
            delay = self._free_at - time.monotonic()
        time.sleep(max(0.0, delay))
        return count


def rank(info: RankInfo, run_dir: Path, bytes_per_s: float) -> None:
    """Train as one rank of a run, on a disk that delivers so many bytes a second to it."""
    os.preadv = SlowDisk(bytes_per_s, os.preadv).preadv
    setup_logging(run_dir, info.rank)
    recipe = read_run_recipe(run_dir)
    train(recipe, run_dir, info, StopFlag(), Pulse(recipe.guards.start_timeout_s, recipe.guards.step_timeout_s))


def wait_share(work: Path, name: str, steps: int, bytes_per_s: float = float("inf")) -> tuple[float, float]:
    """Train a run; (share of the time that it waited, seconds of a step), means over the second half of its steps."""
    path = work / f"{name}.yaml"
    text = RECIPE.format(name=name, work=work, steps=steps, batch=RANKS * MICRO, micro=MICRO, ranks=RANKS)
    path.write_text(text, encoding="utf-8")
    loaded = load_recipe(path)
    if not isinstance(loaded.recipe, PosttrainRecipe) or loaded.recipe.feature_cache is None:
        raise TypeError(f"{path} is no post-training with a cache")
    build_cache(work / "dataset", loaded.recipe.feature_cache, 8, device="cpu")
    run_dir = create_run(loaded, loaded.recipe)
    run_ranks(RANKS, partial(rank, run_dir=run_dir, bytes_per_s=bytes_per_s))
    lines = [line for line in read_jsonl(run_dir / METRICS) if "data_wait_share" in line]
    later = [line for line in lines if line["step"] > steps // 2]
    seconds = sum(line["step_s"] for line in later)  # shares of long steps weigh more
    return sum(line["data_wait_share"] * line["step_s"] for line in later) / seconds, seconds / len(later)


def bytes_per_sample(work: Path) -> float:
    """Bytes that are read for one sample: its pictures, masks and features."""
    dataset = open_dataset(work / "dataset")
    reader = ShardReader(dataset)
    members = sum(len(content) for content in reader.read(0).values())
    reader.close()
    (cache,) = (work / "cache").iterdir()
    return members + read_manifest(cache)["payload_bytes"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--json", type=Path, help="file for the result")
    options = parser.parse_args(arguments)
    steps = 12 if options.quick else 40
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        write_demonstrations(work / "dataset", episodes=12)
        warm, step_s = wait_share(work, "warm", steps)
        need = MICRO * bytes_per_sample(work) / step_s  # of one rank
        rows = [row("data_wait/warm", warm, "share", f"goal: at most 0.01; a step takes {step_s:.2f} s")]
        for name, factor in (("disk_4x", 4.0), ("disk_half", 0.5)):
            share, slow_s = wait_share(work, name, steps, factor * need)
            least = max(0.0, 1 - factor)
            text = f"at best {least:g} at {factor * need / 1024:.1f} KiB/s a rank; a step takes {slow_s:.2f} s"
            rows.append(row(f"data_wait/{name}", share, "share", text))
    report(rows, options.json)


if __name__ == "__main__":
    main()
