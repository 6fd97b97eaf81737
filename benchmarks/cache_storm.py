"""Kills the builders of a feature cache at random until the cache is complete, and compares it with one left in peace.

    python benchmarks/cache_storm.py [--kills 20] [--processes 2] [--samples 4000] [--seed 0] [--json PATH]

Some processes build one cache at the same time: each carries out `pokevla cache build RECIPE`, forked from a process
that has imported everything, because starting the command anew takes longer than many shards. They are killed with
SIGKILL at random moments, spread over four fifths of the time that they need undisturbed, and started again. In the end
every file of the cache must have the bytes of the undisturbed one, the manifest too. A kill counts as `mid_shard` if it
leaves a half-written shard behind.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
from transformers import SamVisionModel  # noqa: F401 (before any fork)

import pokevla.features.cache_build
import pokevla.features.cache_verify  # noqa: F401
from benchmarks.reporting import report, row
from pokevla.cli.main import run
from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.sources.images import encode_jpeg
from pokevla.data.writer import DatasetWriter
from pokevla.embodiment.libero import LIBERO

RECIPE = """\
kind: cache
name: storm
dataset: {dataset}
cache: {{root: {root}, sam: {{kind: sam, preset: tiny}}, vggt: {{kind: vggt, preset: tiny}}, vggt_codec: int4}}
batch: 8
"""
LONGEST_S = 3600.0
ATTEMPTS = 4
IMAGE_SIZE = 32


@dataclass
class Storm:
    """What the disturbed build went through."""

    kills: int = 0
    mid_shard: int = 0
    starts: int = 0
    seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Build both caches, disturb one of them, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2, help="processes that build at the same time")
    parser.add_argument("--samples", type=int, default=4000, help="samples of the dataset, 50 in each shard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # a thread pool does not survive a fork
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_dataset(folder / "dataset", options.samples)
        recipe = write_recipe(folder)
        calm_s = undisturbed_s(recipe, folder, options.processes)
        (folder / "cache").rename(folder / "calm")
        pause_s = 0.8 * calm_s / max(1, options.kills)
        storm = disturb(recipe, folder, options.kills, options.processes, pause_s, rng)
        for _ in range(ATTEMPTS - 1):
            if storm.kills == options.kills:
                break
            # Other work has ended since the undisturbed build: this one was complete before all kills had come.
            shutil.rmtree(folder / "cache")
            pause_s /= 2
            storm = disturb(recipe, folder, options.kills, options.processes, pause_s, rng)
        one, other = files(folder / "calm"), files(folder / "cache")
        problems = [name for name in sorted(one | other) if one.get(name) != other.get(name)]
    for name in problems:
        print(f"DIFFERENT: {name}")
    undisturbed = f"undisturbed: {calm_s:.1f} s"
    rows = [row("kills", storm.kills, "times"), row("mid_shard", storm.mid_shard, "times")]
    rows += [row("starts", storm.starts, "times"), row("seconds", storm.seconds, "s", undisturbed)]
    rows += [row("files", len(one), ""), row("differences", len(problems), "")]
    report(rows, options.json)
    return 1 if problems or storm.kills < options.kills else 0


def write_dataset(out: Path, samples: int, image_size: int = IMAGE_SIZE) -> None:
    """A robot dataset of random pictures."""
    rng = np.random.default_rng(0)
    task = {"suite": "storm", "task": "t", "task_index": 0, "instruction": "t", "split": "train", "episode": 0}
    with DatasetWriter(
        out, group="storm", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, embodiment=LIBERO, shard_samples=50
    ) as writer:
        for frame in range(samples):
            picture = rng.integers(0, 256, (image_size, image_size, 3), dtype=np.uint8)
            members = {f"{view}.jpg": encode_jpeg(picture, 90) for view in LIBERO.views}
            writer.add_sample(f"storm-f{frame:06d}", members, {**task, "frame": frame, "proprio": [0.0] * 8})
        actions = [[0.0] * 7] * samples
        writer.add_episode(
            {
                **task, "length": samples, "init_state_index": 0, "target_shift": None, "actions": actions,
                "executed_actions": actions, "proprio": [[0.0] * 8] * samples,
            }
        )  # fmt: skip
        writer.finish({"statistics": None})


def write_recipe(folder: Path) -> Path:
    """The recipe of both caches: the manifest names their folder, so they are built in the same one."""
    path = folder / "storm.yaml"
    path.write_text(RECIPE.format(dataset=folder / "dataset", root=folder / "cache"), encoding="utf-8")
    return path


def start(recipe: Path) -> BaseProcess:
    """Start `pokevla cache build` in a fork of this process."""
    process = multiprocessing.get_context("fork").Process(target=_build, args=(recipe,))
    process.start()
    return process


def _build(recipe: Path) -> None:
    log = os.open(recipe.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    raise SystemExit(run(["cache", "build", str(recipe)]))


def undisturbed_s(recipe: Path, folder: Path, processes: int) -> float:
    """Build to the end; returns the seconds."""
    return disturb(recipe, folder, 0, processes, 0.0, random.Random(0)).seconds


def disturb(recipe: Path, folder: Path, kills: int, processes: int, pause_s: float, rng: random.Random) -> Storm:
    """Build through all kills, `pause_s` apart on average. A process that has ended is started again until all kills
    are done."""
    began, storm = time.monotonic(), Storm()
    running = [start(recipe) for _ in range(processes)]
    storm.starts = processes
    next_kill = time.monotonic() + pause_s * rng.uniform(0.2, 1.8)
    while any(process.is_alive() for process in running):
        if time.monotonic() - began > LONGEST_S:
            raise SystemExit(f"not complete after {LONGEST_S:g} s; see {recipe.with_suffix('.log')}")
        time.sleep(0.01)
        if storm.kills == kills or time.monotonic() < next_kill:
            continue
        place = rng.randrange(processes)
        if running[place].is_alive():
            running[place].kill()
            running[place].join()
            storm.kills += 1
            # Each living process has at most one half-written shard.
            storm.mid_shard += len(half_written(folder)) > sum(process.is_alive() for process in running)
        running[place].join()
        running[place] = start(recipe)
        storm.starts += 1
        next_kill = time.monotonic() + pause_s * rng.uniform(0.2, 1.8)
    codes = [process.exitcode for process in running]
    if codes != [0] * processes:
        raise SystemExit(f"exit codes {codes}:\n{recipe.with_suffix('.log').read_text(encoding='utf-8')}")
    storm.seconds = time.monotonic() - began
    return storm


def half_written(folder: Path) -> list[Path]:
    """Files under temporary names in the shards of the cache."""
    return list((folder / "cache").glob("*/shards/.tmp-*"))


def files(root: Path) -> dict[str, bytes]:
    """Every file of the only cache in `root`."""
    (directory,) = root.iterdir()
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }


if __name__ == "__main__":
    raise SystemExit(main())
