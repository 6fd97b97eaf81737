"""Kills the builders of a feature cache at random until the cache is complete, and compares it with one left in peace.

    python benchmarks/cache_storm.py [--kills 20] [--processes 2] [--samples 4000] [--seed 0] [--json PATH]

Some processes build one cache at the same time, as a user starts them: `pokevla cache build RECIPE`. They are killed
with SIGKILL at random moments, half to three times as late as one usually writes its first shard, and started again.
In the end every file of the cache must have the bytes of the undisturbed one.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from reporting import report, row

from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.sources.images import encode_jpeg
from pokevla.data.writer import DatasetWriter
from pokevla.embodiment.libero import LIBERO

RECIPE = """\
kind: cache
name: storm
dataset: {dataset}
cache: {{root: {root}, sam: {{kind: sam, preset: tiny}}, vggt: {{kind: vggt, preset: tiny}}}}
batch: 8
"""
LONGEST_S = 3600.0
IMAGE_SIZE = 32


def main() -> int:
    """Build both caches, disturb one of them, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2, help="processes that build at the same time")
    parser.add_argument("--samples", type=int, default=4000, help="samples of the dataset, 50 in each shard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_dataset(folder / "dataset", arguments.samples)
        calm, stormy = write_recipe(folder, "calm"), write_recipe(folder, "stormy")
        usual_s = first_shard_s(calm, folder / "calm")
        kills, starts, seconds = disturb(stormy, arguments.kills, arguments.processes, usual_s, rng)
        one, other = files(folder / "calm"), files(folder / "stormy")
        problems = [name for name in sorted(one | other) if one.get(name) != other.get(name)]
    for name in problems:
        print(f"DIFFERENT: {name}")
    rows = [row("kills", kills, "times"), row("starts", starts, "times"), row("seconds", seconds, "s")]
    rows += [row("files", len(one), ""), row("differences", len(problems), "")]
    report(rows, arguments.json)
    return 1 if problems or kills < arguments.kills else 0


def write_dataset(out: Path, samples: int) -> None:
    """A robot dataset of random pictures."""
    rng = np.random.default_rng(0)
    task = {"suite": "storm", "task": "t", "task_index": 0, "instruction": "t", "split": "train", "episode": 0}
    with DatasetWriter(
        out, group="storm", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, embodiment=LIBERO, shard_samples=50
    ) as writer:
        for frame in range(samples):
            picture = rng.integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
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


def write_recipe(folder: Path, name: str) -> Path:
    """The recipe of one of the caches."""
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.format(dataset=folder / "dataset", root=folder / name), encoding="utf-8")
    return path


def start(recipe: Path) -> subprocess.Popen[bytes]:
    """Start `pokevla cache build`."""
    with recipe.with_suffix(".log").open("ab") as log:
        command = [sys.executable, "-m", "pokevla.cli.main", "cache", "build", str(recipe)]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def first_shard_s(recipe: Path, root: Path) -> float:
    """Build to the end; returns the seconds from the start to the first shard."""
    began, process, first = time.monotonic(), start(recipe), 0.0
    while process.poll() is None:
        if not first and any(root.glob("*/shards/*.idx")):
            first = time.monotonic() - began
        time.sleep(0.05)
    if process.returncode != 0 or not first:
        log = recipe.with_suffix(".log").read_text(encoding="utf-8")
        raise SystemExit(f"the undisturbed build failed:\n{log}")
    return first


def disturb(recipe: Path, kills: int, processes: int, usual_s: float, rng: random.Random) -> tuple[int, int, float]:
    """Build through all kills; (kills, starts, seconds). A process that has ended is started again until all kills are
    done."""
    began, done = time.monotonic(), 0
    running = [start(recipe) for _ in range(processes)]
    starts = processes
    next_kill = time.monotonic() + usual_s * rng.uniform(0.5, 3.0) / processes
    while any(process.poll() is None for process in running):
        if time.monotonic() - began > LONGEST_S:
            raise SystemExit(f"not complete after {LONGEST_S:g} s; see {recipe.with_suffix('.log')}")
        time.sleep(0.1)
        if done == kills or time.monotonic() < next_kill:
            continue
        place = rng.randrange(processes)
        if running[place].poll() is None:
            running[place].send_signal(signal.SIGKILL)
            done += 1
        running[place].wait()
        running[place], starts = start(recipe), starts + 1
        next_kill = time.monotonic() + usual_s * rng.uniform(0.5, 3.0) / processes
    codes = [process.returncode for process in running]
    if codes != [0] * processes:
        raise SystemExit(f"exit codes {codes}; see {recipe.with_suffix('.log')}")
    return done, starts, time.monotonic() - began


def files(root: Path) -> dict[str, bytes]:
    """Every file of the only cache in `root`, but the manifest's paths."""
    (directory,) = root.iterdir()
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "manifest.json"  # it names the root, which differs
    }


if __name__ == "__main__":
    raise SystemExit(main())
