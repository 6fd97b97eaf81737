"""Runs many tasks of LIBERO-Plus for a moment each: created, reset, three steps, one picture. Counts what crashes.

    python benchmarks/libero_plus_sweep.py --checkout DIR [--assets DIR] [--per-kind N] [--workers N] [--out DIR]

N tasks are drawn for each native perturbation (camera, robot, language, noise, layout) and suite, without replacement.
With --assets light, background and added objects are drawn as well. `OUT/tasks.jsonl` has a line per task, written as it
ends; `OUT/KIND.png` shows the first of each suite, both views. Exit code 1 if a task crashed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pokevla.files.writing import atomic_path
from pokevla.simulation.benchmark import EnvironmentSettings, TaskSource
from pokevla.simulation.libero_plus.benchmark import LIBERO_PLUS
from pokevla.simulation.libero_plus.checkout import NUM_TASKS
from pokevla.simulation.libero_plus.tasks import checkout_of

NATIVE = ("camera", "robot", "language", "noise", "moved")
WITH_ASSETS = ("light", "background", "added")
SHOWN = 4  # pictures per kind and suite
STEPS = 3
ACTION = np.array([0.5, 0.0, -0.2, 0.0, 0.0, 0.3, -1.0])


def drawn_tasks(source: TaskSource, per_kind: int, seed: int) -> list[tuple[str, str, int]]:
    """(kind, suite, index), the kinds and suites in turn, so that an interrupted sweep has some of each."""
    rows = checkout_of(source).rows
    rng = np.random.default_rng(seed)
    columns = []
    for kind in NATIVE + (WITH_ASSETS if source.assets else ()):
        for suite in NUM_TASKS:
            of_kind = [row.index for row in rows[suite] if row.parts.kind == kind]
            columns.append([(kind, suite, int(index)) for index in rng.permutation(of_kind)[:per_kind]])
    return [task for turn in range(per_kind) for column in columns for task in column[turn : turn + 1]]


def run_task(source: TaskSource, suite: str, index: int, size: int) -> dict[str, Any]:
    """What one task did. `images`: (2, size, size, 3) uint8 after the steps."""
    started, cpu = time.monotonic(), time.process_time()
    task = LIBERO_PLUS.configured(source).get_task(suite, index)
    settings = EnvironmentSettings(size, fast_rendering=True, seed=0, source=source)
    environment = LIBERO_PLUS.make(suite, index, settings)
    environment.reset(0)
    for _ in range(STEPS):
        environment.step(ACTION)
    seen = environment.observe()
    environment.close()
    if seen.images is None or not np.isfinite(seen.proprio).all() or seen.images[0].std() < 1:
        raise ValueError("the picture is empty or the state is not finite")
    return {
        "name": task.name,
        "perturbation": task.perturbation,
        "level": task.level,
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "images": seen.images,
    }


def main() -> int:
    arguments = _arguments()
    source = TaskSource(arguments.checkout.resolve(), arguments.assets.resolve() if arguments.assets else None)
    arguments.out.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, dict[str, list[np.ndarray]]] = {}
    crashes = Counter[str]()
    done = Counter[str]()
    tasks = drawn_tasks(source, arguments.per_kind, arguments.seed)
    with (
        (arguments.out / "tasks.jsonl").open("w", encoding="utf-8") as log,
        # A new process after some tasks bounds the memory of GL contexts and compiled models.
        ProcessPoolExecutor(
            arguments.workers, multiprocessing.get_context("spawn"), max_tasks_per_child=arguments.per_process
        ) as pool,
    ):
        futures: dict[Future[dict[str, Any]], tuple[str, str, int]] = {
            pool.submit(run_task, source, suite, index, arguments.image_size): (kind, suite, index)
            for kind, suite, index in tasks
        }
        for future in as_completed(futures):
            kind, suite, index = futures[future]
            line: dict[str, Any] = {"kind": kind, "suite": suite, "index": index}
            error = future.exception()
            if error is None:
                result = future.result()
                shown = pictures.setdefault(kind, {}).setdefault(suite, [])
                if len(shown) < SHOWN:
                    shown.append(result["images"])
                    _write_sheet(arguments.out / f"{kind}.png", pictures[kind])
                line |= {key: value for key, value in result.items() if key != "images"}
                done[kind] += 1
            else:
                line["error"] = f"{type(error).__name__}: {error}"
                crashes[kind] += 1
            print(json.dumps(line), file=log, flush=True)
    for kind in dict.fromkeys(kind for kind, _, _ in tasks):
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
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--per-process", type=int, default=25, help="tasks after which a process is replaced")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("libero_plus_sweep"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
