"""Runs many tasks of LIBERO-Plus for a moment each: created, reset, three steps, one picture. Counts what crashes.

    python benchmarks/libero_plus_sweep.py --checkout DIR [--assets DIR] [--per-kind N] [--kinds K ...] [--workers N]

N tasks are drawn for each native perturbation (camera, robot, language, noise, layout) and suite, without replacement.
With --assets light, background and added objects are drawn as well. Tasks that differ from one base task in camera,
instruction or noise only share an environment. `OUT/tasks.jsonl` has a line per task; `OUT/KIND.png` shows the first of
each suite, both views. Exit code 1 if a task crashed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pokevla.files.writing import atomic_path
from pokevla.simulation.benchmark import EnvironmentSettings, TaskSource
from pokevla.simulation.libero_plus.checkout import NUM_TASKS, TaskRow
from pokevla.simulation.libero_plus.environment import PlusEnvironment
from pokevla.simulation.libero_plus.names import SHARING
from pokevla.simulation.libero_plus.tasks import checkout_of

NATIVE: tuple[str, ...] = ("camera", "robot", "language", "noise", "moved")
WITH_ASSETS: tuple[str, ...] = ("light", "background", "added")
SHOWN = 4  # pictures per kind and suite
STEPS = 3
ACTION = np.array([0.5, 0.0, -0.2, 0.0, 0.0, 0.3, -1.0])


def drawn_tasks(source: TaskSource, kinds: Sequence[str], per_kind: int, seed: int) -> list[TaskRow]:
    """The kinds and suites in turn, so that an interrupted sweep has some of each."""
    rows = checkout_of(source).rows
    rng = np.random.default_rng(seed)
    columns = []
    for kind in kinds:
        for suite in NUM_TASKS:
            of_kind = [row for row in rows[suite] if row.parts.kind == kind]
            columns.append([of_kind[place] for place in rng.permutation(len(of_kind))[:per_kind]])
    return [row for turn in range(per_kind) for column in columns for row in column[turn : turn + 1]]


def groups_of(rows: list[TaskRow]) -> list[list[TaskRow]]:
    """Tasks that can share an environment together, the others one by one."""
    groups: dict[object, list[TaskRow]] = {}
    for row in rows:
        own = (row.suite, row.index)
        groups.setdefault((row.suite, row.parts.base) if row.parts.kind in SHARING else own, []).append(row)
    return list(groups.values())


def run_group(source: TaskSource, group: list[TaskRow], size: int) -> list[dict[str, Any]]:
    """What each task did, `images` (2, size, size, 3) uint8 after the steps, or `error`. One environment for all."""
    settings = EnvironmentSettings(size, fast_rendering=True, seed=0, source=source)
    environment: PlusEnvironment | None = None
    results = []
    for row in group:
        started, cpu = time.monotonic(), time.process_time()
        result: dict[str, Any] = {"kind": row.parts.kind, "suite": row.suite, "index": row.index, "name": row.name}
        try:
            if environment is None:
                environment = PlusEnvironment(row.suite, row.index, settings)
            else:
                environment.switch(row.index)
            result["images"] = _run(environment)
        except Exception as error:  # noqa: BLE001 - any error is a crash of this task, and the next one is tried
            result["error"] = f"{type(error).__name__}: {error}"
            environment = None
        result["seconds"] = round(time.monotonic() - started, 2)
        result["cpu_seconds"] = round(time.process_time() - cpu, 2)
        results.append(result)
    if environment is not None:
        environment.close()
    return results


def run_groups(
    source: TaskSource, groups: list[list[TaskRow]], arguments: argparse.Namespace
) -> Iterator[list[dict[str, Any]]]:
    """`run_group` of each, in several processes. A process that dies ends the sweep with an error."""
    # New processes after some groups bound the memory of GL contexts and compiled models. Not max_tasks_per_child:
    # with it the executor can hang (github.com/python/cpython/issues/115634).
    size = arguments.workers * arguments.per_process
    for start in range(0, len(groups), size):
        with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
            some = groups[start : start + size]
            futures = [pool.submit(run_group, source, group, arguments.image_size) for group in some]
            for future in as_completed(futures):
                yield future.result()


def _run(environment: PlusEnvironment) -> np.ndarray:
    environment.reset(0)
    for _ in range(STEPS):
        environment.step(ACTION)
    seen = environment.observe()
    if seen.images is None or not np.isfinite(seen.proprio).all() or seen.images[0].std() < 1:
        raise ValueError("the picture is empty or the state is not finite")
    return seen.images


def main() -> int:
    arguments = _arguments()
    source = TaskSource(arguments.checkout.resolve(), arguments.assets.resolve() if arguments.assets else None)
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, dict[str, list[np.ndarray]]] = {}
    crashes = Counter[str]()
    done = Counter[str]()
    kinds = arguments.kinds or NATIVE + (WITH_ASSETS if source.assets else ())
    groups = groups_of(drawn_tasks(source, kinds, arguments.per_kind, arguments.seed))
    with (arguments.out / "tasks.jsonl").open("w", encoding="utf-8") as log:
        for results in run_groups(source, groups, arguments):
            for line in results:
                kind, images = line["kind"], line.pop("images", None)
                (done if images is not None else crashes)[kind] += 1
                shown = pictures.setdefault(kind, {}).setdefault(line["suite"], [])
                if images is not None and len(shown) < SHOWN:
                    shown.append(images)
                    _write_sheet(arguments.out / f"{kind}.png", pictures[kind])
                print(json.dumps(line), file=log, flush=True)
    for kind in kinds:
        print(f"{kind:12} {done[kind]:5} ran, {crashes[kind]} crashed")
    print(f"{'all':12} {done.total():5} ran, {crashes.total()} crashed")
    return 1 if crashes else 0


def _write_sheet(path: Path, by_suite: dict[str, list[np.ndarray]]) -> None:
    """A row per suite; base and wrist view of each task side by side."""
    rows = []
    for suite in NUM_TASKS:
        tasks = by_suite.get(suite, [])
        size = next(images for shown in by_suite.values() for images in shown).shape[1]
        blank = np.zeros((2, size, size, 3), np.uint8)
        rows.append(
            np.concatenate([view for task in (*tasks, *[blank] * (SHOWN - len(tasks))) for view in task], axis=1)
        )
    with atomic_path(path) as temporary:
        Image.fromarray(np.concatenate(rows)).save(temporary, format="PNG")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkout", type=Path, required=True, help="checkout of LIBERO-Plus")
    parser.add_argument("--assets", type=Path, help="its assets folder")
    parser.add_argument("--per-kind", type=int, default=16, help="tasks of each perturbation and suite")
    parser.add_argument(
        "--kinds", nargs="+", choices=NATIVE + WITH_ASSETS, help="the perturbations; default: all that run"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--per-process", type=int, default=25, help="tasks after which a process is replaced")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("libero_plus_sweep"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
