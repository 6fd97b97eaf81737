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
  official score of the points. Ratio: over chance. The table is that of the paper's Table VII.
- `where2place/constant`: one point for every question, that in the most boxes of the mixture's answers, by the same
  scorer. `best_constant` in the JSON is the point that is best on the benchmark itself, which no model can know.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
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
from benchmarks.twin.baseline import judge_constant
from benchmarks.twin.make import SOURCES, write_twin
from benchmarks.twin.plan import TwinSettings
from benchmarks.twin.recipes import LEFT_OUT_OF_TABLE, ROWS, mixture_recipe, pretrain_recipe, write_where2place
from pokevla.cli.main import run

LONGEST_S = 3600.0
OF_INPUTS = ("mixture.json", "report.html", "dataset.json")
"""Files that name fingerprints of the inputs, which depend on their shards."""


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
    write_twin(work / "twin", settings, rows={name: each * rows for name, each in ROWS.items()})
    (work / "mixture.yaml").write_text(mixture_recipe(work / "build", rows), encoding="utf-8")
    began = time.monotonic()
    build(work, 2, 100)
    calm_s = time.monotonic() - began
    (work / "build").rename(work / "calm")
    calm = work / "calm/mixed/vlm"
    build(work, 1, 1000)
    again = differing(files(calm, OF_INPUTS), files(work / "build/mixed/vlm", OF_INPUTS))
    (work / "build").rename(work / "again")
    found = [row("build/again", len(again), "files differ", files=len(files(calm)), seconds=calm_s)]
    if kills:
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
    benchmark = write_where2place(work / "where2place", seed + 1)
    constant = judge_constant(work / "calm/mixed/vlm/grounding", benchmark, work / "judged/constant")
    found = [score_row("constant", constant)]
    for name, left_out in LEFT_OUT_OF_TABLE.items():
        recipe = work / f"{name}.yaml"
        recipe.write_text(pretrain_recipe(work, name, left_out, 1 if name == "untrained" else steps), encoding="utf-8")
        run_pokevla(["train", str(recipe)])
        out = work / "judged" / name
        run_pokevla(["eval", "where2place", str(work / "runs" / name), str(benchmark), "--wording", "pokevla",
                 "--part", "point", "--max-new-tokens", "64", "--out", str(out)])  # fmt: skip
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
        found.append(score_row(name, summary))
        print(f"{name}: {found[-1]['value']:.3f}", flush=True)
    return found


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
    parser.add_argument("--work", type=Path, help="new folder to keep; default: a temporary one")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        rows = build_rows(work, options.rows, options.kills, options.seed)
        if options.steps:
            rows += learnt_rows(work, options.steps, options.seed)
    report(rows, options.json)
    return 1 if any(each["value"] for each in rows if each["name"].startswith("build/")) else 0


if __name__ == "__main__":
    sys.exit(main())
