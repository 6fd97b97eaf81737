"""The whole curation on a synthetic twin of the published question sets, and what is learnt from it.

    python benchmarks/curation.py --rows 300 --json curation.json
    python benchmarks/curation.py --rows 1000 --kills 0 --steps 3000 --work FOLDER

Ten sources of `twin/` are converted, screened for duplicates and mixed by one recipe (`twin/recipes.py`), all by the
commands of docs/data.md.

- `build/again`: files of the mixture that differ when everything is done again with other numbers of processes and
  samples per shard. Files that name fingerprints of the inputs, such as `mixture.json`, are left out.
- `build/killed`: files that differ when the chain of commands is killed with SIGKILL `--kills` times at random moments
  and started again. Here everything is compared.
- `where2place/NAME`, with `--steps`: PokeVLMs of size mini are trained on the mixture, on it without one category each,
  and not at all, and asked 100 questions about unseen pictures in Where2Place's layout by `pokevla eval where2place`:
  official score of the points. Ratio: over chance. The table is that of the paper's Table VII. `on_a_thing` and
  `named_nearest` in the JSON tell a model that points at things from one that looks for the named one.
- `where2place/constant`: one point for every question, that in the most boxes of the mixture's answers, by the same
  scorer. `best_constant` in the JSON is the point that is best on the benchmark itself, which no model can know.

Killed with `--work`, the same call goes on: what is built, trained or judged in that folder is not done again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pokevla.data.curation.conversion
import pokevla.data.mixing.mixing
import pokevla.data.screening.duplicates  # noqa: F401 (before any fork)
from benchmarks.commands import run_pokevla
from benchmarks.reporting import report, row
from benchmarks.twin.aim import aim_of
from benchmarks.twin.baseline import judge_constant
from benchmarks.twin.make import SOURCES, write_twin
from benchmarks.twin.plan import TwinSettings
from benchmarks.twin.recipes import (
    LEFT_OUT_OF_TABLE,
    QUESTIONS_NAME,
    ROWS,
    mixture_recipe,
    pretrain_recipe,
    write_where2place,
)
from pokevla.cli.main import run
from pokevla.runs.creation import has_progress
from pokevla.runs.directory import is_exported

LONGEST_S = 3600.0
OF_INPUTS = ("mixture.json", "report.html", "dataset.json")
"""Files that name fingerprints of the inputs, which depend on their shards."""


def claim(work: Path, options: dict[str, int]) -> None:
    """Note in `work` what it is made with. Raises SystemExit if that is something else already."""
    noted = work / "options.json"
    if noted.exists():
        earlier = json.loads(noted.read_text(encoding="utf-8"))
        if earlier != options:
            raise SystemExit(f"{work} was made with {earlier}, not {options}: choose another folder.")
    elif any(work.iterdir()):
        raise SystemExit(f"{work} is not empty, and not of this benchmark: choose another folder.")
    noted.write_text(json.dumps(options), encoding="utf-8")


def chain(work: Path, workers: int, shard_samples: int) -> list[list[str]]:
    """The commands that make the mixture from the twin in `work/twin`; what is finished in `work/build` is left out."""
    twin, build = work / "twin", work / "build"
    shared = ["--workers", str(workers), "--shard-samples", str(shard_samples), "--max-side", "128"]
    commands = [
        ["data", "convert", name, str(twin / source.folder), str(build / "sources" / name), *shared]
        for name, source in SOURCES.items()
        if not (build / "sources" / name / "dataset.json").exists()
    ]
    duplicates = build / "duplicates"
    if not duplicates.exists():
        sources = [str(build / "sources" / name) for name in SOURCES]
        commands.append(["data", "duplicates", *sources, "--out", str(duplicates)])
    if not (build / "mixed/vlm").exists():
        commands.append(["data", "mix", str(work / "mixture.yaml"), "--workers", str(workers)])
    return commands


def build(work: Path, workers: int, shard_samples: int, kills: int = 0, pause_s: float = 0.0, seed: int = 0) -> int:
    """Run the chain in forks of this process, each killed at a random moment until `kills` have come, `pause_s` apart
    on average; returns how often it was killed before it had finished."""
    began, done, rng = time.monotonic(), 0, random.Random(seed)
    while True:
        process = multiprocessing.get_context("fork").Process(target=_chain, args=(work, workers, shard_samples))
        process.start()
        process.join(pause_s * rng.uniform(0.2, 1.8) if done < kills else LONGEST_S)
        if process.exitcode == 0:
            return done
        if process.exitcode is not None or time.monotonic() - began > LONGEST_S:
            log = (work / "chain.log").read_text(encoding="utf-8")
            raise SystemExit(f"exit code {process.exitcode}:\n{log}")
        os.killpg(process.pid or 0, signal.SIGKILL)  # with its workers
        process.join()
        done += 1


def _chain(work: Path, workers: int, shard_samples: int) -> None:
    os.setsid()
    log = os.open(work / "chain.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for command in chain(work, workers, shard_samples):
        if code := run(command):
            raise SystemExit(code)
    raise SystemExit(0)


def files(root: Path, left_out: tuple[str, ...] = ()) -> dict[str, bytes]:
    """The files of a mixture by name."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Names of files that only one has, or that differ."""
    return [name for name in sorted(one | other) if one.get(name) != other.get(name)]


def build_rows(work: Path, rows: int, kills: int, seed: int) -> list[dict[str, Any]]:
    """Build the mixture in `work/calm`, build it again in other ways, and compare."""
    settings = TwinSettings(rows, seed=seed, faults=0.05, side=128)
    recipe, timing = work / "mixture.yaml", work / "calm.json"
    if not recipe.exists():
        shutil.rmtree(work / "twin", ignore_errors=True)
        write_twin(work / "twin", settings, rows={name: each * rows for name, each in ROWS.items()})
        recipe.write_text(mixture_recipe(work / "build", rows), encoding="utf-8")
    if not timing.exists():
        began = time.monotonic()
        build(work, 2, 100)
        timing.write_text(json.dumps({"seconds": time.monotonic() - began}), encoding="utf-8")
    calm_s = json.loads(timing.read_text(encoding="utf-8"))["seconds"]
    if not (work / "calm").exists():
        (work / "build").rename(work / "calm")
    if not (work / "again").exists():
        build(work, 0, 1000)
        (work / "build").rename(work / "again")
    calm = work / "calm/mixed/vlm"
    again = differing(files(calm, OF_INPUTS), files(work / "again/mixed/vlm", OF_INPUTS))
    found = [row("build/again", len(again), "files differ", files=len(files(calm)), seconds=calm_s)]
    if kills:
        shutil.rmtree(work / "build", ignore_errors=True)  # of a call that was killed
        done = build(work, 2, 100, kills, 0.6 * calm_s / kills, seed)
        different = differing(files(calm), files(work / "build/mixed/vlm"))
        found.append(row("build/killed", len(different), "files differ", kills=done))
        again += different
        if done < kills:
            print(f"Only {done} of {kills} kills came before the end.")
    for name in again:
        print(f"DIFFERENT: {name}")
    return found


def learnt_rows(work: Path, steps: int, seed: int) -> list[dict[str, Any]]:
    """Train the models of the table and ask them; one row each."""
    benchmark = work / "where2place"
    if not (benchmark / QUESTIONS_NAME).exists():
        shutil.rmtree(benchmark, ignore_errors=True)
        write_where2place(benchmark, seed + 1)
    found = []
    for name in ("constant", *LEFT_OUT_OF_TABLE):
        out = work / "judged" / name
        if not out.exists() and name == "constant":
            judge_constant(work / "calm/mixed/vlm/grounding", benchmark, out)
        elif not out.exists():
            train(work, name, 1 if name == "untrained" else steps)
            run_pokevla(["eval", "where2place", str(work / "runs" / name), str(benchmark), "--wording", "pokevla",
                         "--part", "point", "--max-new-tokens", "64", "--out", str(out)])  # fmt: skip
        aim = aim_of(out / "answers.jsonl", seed + 1)
        found.append(score_row(name, json.loads((out / "summary.json").read_text(encoding="utf-8"))) | aim)
        print("{}: {:.2f}; on a thing {on_a_thing:.2f}, the named one nearest {named_nearest:.2f} (by chance "
              "{by_chance:.2f})".format(name, found[-1]["value"], **aim), flush=True)  # fmt: skip
    return found


def train(work: Path, name: str, steps: int) -> None:
    """Train one model of the table in `work/runs`, or go on with it."""
    run_dir, recipe = work / "runs" / name, work / f"{name}.yaml"
    recipe.write_text(pretrain_recipe(work, name, LEFT_OUT_OF_TABLE[name], steps), encoding="utf-8")
    if not is_exported(run_dir):
        run_pokevla(["resume", str(run_dir)] if has_progress(run_dir) else ["train", str(recipe)])


def score_row(name: str, summary: dict[str, Any]) -> dict[str, Any]:
    """The row of a model from the summary of its points."""
    part = summary["parts"]["point"]
    score = part["official"]["score"] if part["official"] else 0.0
    chance, constant = part["chance"], part["best_constant"]
    return row(f"where2place/{name}", score, "of 1", f"chance {chance:.3f}", score / chance,
               interval=part["official"], failures=part["failure_rate"], best_constant=constant)  # fmt: skip


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=300, help="rows of most sources; RoboRefIt has twelve times as many"
    )
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=0, help="steps of pre-training; 0: no training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work", type=Path, help="folder to keep, new or of a call that was killed; default: a temporary one"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        claim(work, {"rows": options.rows, "steps": options.steps, "seed": options.seed})
        rows = build_rows(work, options.rows, options.kills, options.seed)
        if options.steps:
            rows += learnt_rows(work, options.steps, options.seed)
    report(rows, options.json)
    return 1 if any(each["value"] for each in rows if each["name"].startswith("build/")) else 0


if __name__ == "__main__":
    sys.exit(main())
