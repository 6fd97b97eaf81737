"""The commands that `kill_storm.py` kills, what of their output is compared, and what a kill must not cost."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from storm.command import Parts, Victim, storm_command
from storm.outcome import Outcome

REPOSITORY = Path(__file__).resolve().parents[2]
DEMOS = ("--suite", "libero_object", "--task", "3", "--episodes", "3", "--init-states", "0:8", "--image-size", "32",
         "--image-stride", "16", "--fast-rendering", "--workers", "2")  # fmt: skip
CACHE = """\
kind: cache
name: features
output: {out}
dataset: {robot}
cache: {{root: {out}/cache, sam: {{preset: tiny}}, vggt: {{preset: tiny}}}}
batch: 1
"""
EVALUATION = """\
kind: eval
name: evaluation
output: {out}
policies: [{{name: replay, kind: replay, dataset: {robot}}}]
trials: {{suite: libero_object, tasks: [3], init_states: [30, 36], max_steps: 10}}
image_size: 32
fast_rendering: true
workers: 1
videos: 0
"""
MEASURED = ("seconds", "mean_seconds")
"""Fields of an evaluation that depend on the machine."""


def pokevla(*words: str | Path) -> list[str]:
    """Command line of a `pokevla` command."""
    return [sys.executable, "-m", "pokevla.cli.main", *map(str, words)]


def storm_commands(work: Path, kills: int, seed: int, names: tuple[str, ...]) -> Iterator[tuple[str, Outcome]]:
    """Kill each command `kills` times. Yields its name and the outcome. Each uses the undisturbed output of others."""
    for name in names:
        yield name, storm_command(VICTIMS[name](work), work / folder_name(name), kills, random.Random(f"{seed} {name}"))


def folder_name(name: str) -> str:
    """Name of a command's folder."""
    return name.replace(" ", "-")


def calm(work: Path, name: str) -> Path:
    """Undisturbed output of a command; made now if it has not been killed yet."""
    out = work / folder_name(name) / "calm"
    if not out.exists():
        subprocess.run(VICTIMS[name](work).words(out), check=True, stdout=subprocess.DEVNULL)
    return out


# ------------------------------------------------------------------------------------------------ the commands


def demonstrations(work: Path) -> Victim:
    """Three episodes of the scripted expert by two simulator processes. Attempts that have ended stay."""
    return Victim(
        "data demos",
        lambda out: pokevla("data", "demos", *DEMOS, "--out", out),
        partial(files, "libero_object/*.hdf5"),
        partial(unchanged, "libero_object/.unfinished-*/*.npz"),
    )


def conversion(work: Path) -> Victim:
    """Conversion of the demonstrations; one sample per shard, so that it writes many files."""
    raw = calm(work, "data demos")
    return Victim(
        "data convert",
        lambda out: pokevla("data", "convert", "libero", raw, out / "robot", "--shard-samples", "1"),
        partial(files, "robot/**/*"),
    )


def cache(work: Path) -> Victim:
    """Features of the converted dataset. Finished shards stay."""
    robot = calm(work, "data convert") / "robot"
    shards = partial(unchanged, "cache/*/shards/*.idx")

    def words(out: Path) -> list[str]:
        return pokevla("cache", "build", recipe(out, CACHE.format(out=out, robot=robot)))

    def content(out: Path) -> Parts:
        return files("cache/*/[!.]*", out) | files("cache/*/shards/*", out) if any(out.glob("cache/*/COMPLETE")) else {}

    return Victim("cache build", words, content, shards)


def evaluation(work: Path) -> Victim:
    """Six trials in a simulator process. Finished trials stay."""
    robot = calm(work, "data convert") / "robot"

    def words(out: Path) -> list[str]:
        return pokevla("eval", recipe(out, EVALUATION.format(out=out, robot=robot)))

    return Victim("eval", words, results, trials)


def export(work: Path) -> Victim:
    """Export of a short training."""
    run_dir = work / "exported" / "runs" / "calm"
    if not run_dir.exists():
        from storm.training import train_undisturbed

        train_undisturbed(work / "exported", steps=8)
    return Victim(
        "ckpt export", lambda out: pokevla("ckpt", "export", run_dir, out / "export"), partial(files, "export/**/*")
    )


VICTIMS: dict[str, Callable[[Path], Victim]] = {
    "data demos": demonstrations,
    "data convert": conversion,
    "cache build": cache,
    "eval": evaluation,
    "ckpt export": export,
}


def recipe(out: Path, text: str) -> Path:
    """Write the recipe of a command beside its output."""
    path = out.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------ what is compared


def files(pattern: str, out: Path) -> Parts:
    """Hash of every matching file by its path. A file may name the folder that it lies in."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes().replace(bytes(out), b"OUT")).hexdigest()
        for path in sorted(out.glob(pattern))
        if path.is_file()
    }


def unchanged(pattern: str, out: Path) -> Parts:
    """Identity of every matching file: another one if it has been written again, even with the same content."""
    return {path.name: f"{path.stat().st_ino} {path.stat().st_mtime_ns}" for path in out.glob(pattern)}


def trials(out: Path) -> Parts:
    """Complete lines of `episodes.jsonl` by trial. They hold the duration, so a repeated trial differs."""
    path = out / "evaluation" / "episodes.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return {str(json.loads(line)["init_state_index"]): line for line in lines}


def results(out: Path) -> Parts:
    """Records and summary of a complete evaluation without durations."""
    summary = out / "evaluation" / "summary.json"
    if not summary.is_file():
        return {}
    records = {f"trial {state}": json.loads(line) for state, line in trials(out).items()}
    policies = {
        f"summary of {name}": row for name, row in json.loads(summary.read_text(encoding="utf-8"))["policies"].items()
    }
    return {
        name: json.dumps({key: value for key, value in fields.items() if key not in MEASURED}, sort_keys=True)
        for name, fields in (records | policies).items()
    }
