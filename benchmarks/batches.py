"""Whole batches: how a loader slows the main thread down, and what a batch costs.

    python benchmarks/batches.py --json batches.json
    python benchmarks/batches.py --quick
    PYTHONPATH=$PWD:FOLDER python benchmarks/batches.py     # FOLDER has lerobot (pip install --target FOLDER lerobot)

The data is synthetic and of the sizes of `pocket`: two views of 256 px with masks, 224 px for the model, cached
features of 3.06 MiB; questions about one picture of 256 px. CPU seconds of a core, best of several rounds; the sides
take turns.

- `main_thread/alone`: 6,000 small torch operations, a stand-in for kernel launches, alone against beside the loader
  process that makes batches all the time; `main_thread/threads` the same beside the loader's threads. Ratio: time alone
  over time beside the loader, 1 is no slow-down. CPU seconds of the main thread do not show waiting for the
  interpreter's lock. So this is wall time without the time in which the thread waited for a core (run_delay of
  /proc/thread-self/schedstat). `main_thread/neighbour`: time beside an unrelated process that decodes pictures over
  time beside the loader. Two virtual cores are often one real core, where any neighbour slows the other down.
- `batch_pocket/decode`: JPEG decoding of the pictures alone, over our whole robot sample on one thread: the share of
  decoding by Pillow. `batch_pocket/webdataset`: webdataset with torchvision's v2 transforms over ours, which resizes as
  torchvision does (`data.image_filter: bilinear_torch`); `batch_pocket/webdataset_pillow`: over ours with the default
  filter, Pillow's. `batch_pocket/lerobot`: lerobot's data set with the same transforms over ours, both without masks
  and features; `batch_pocket/lerobot_whole`: over our whole sample. Left out and named where lerobot is not installed.
  `batch_pocket`: samples/s with the filter of torch, ratio over those with Pillow's; `batch_pocket/memcpy`: the pace of
  memcpy in the same run.
- `batch_vlm`: one question with its picture. `batch_vlm/photograph`: with one of 640 x 480 px and
  `data.reduce_in_decoder`; ratio: time without it over time with it.
- `padding/limit`: tokens, padding counted, of the micro-batches of a perfect sort of all samples over those with
  `data.sort_by_length`, global batch 64, micro-batch 4, answers with log-normal lengths; `padding/unsorted` over those
  without. A perfect sort is the limit: 1.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.interleaved import best_seconds
from benchmarks.readers.lerobot import lerobot_batches
from benchmarks.readers.ours import LAYOUTS, random_records
from benchmarks.readers.pictures import WordTokenizer, webdataset_batches, write_questions, write_robot
from benchmarks.reporting import report, row
from pokevla.data.loader import batch_maker, build_loader
from pokevla.data.loading.memory import page_aligned
from pokevla.data.loading.process_loader import DataProcess, ProcessLoader
from pokevla.data.loading.slots import SlotWriter, new_slot
from pokevla.data.loading.worker import MakeBatch
from pokevla.data.mixture import open_mixture
from pokevla.data.reader import ShardReader
from pokevla.data.samples import RobotSampleMaker, VLMSampleMaker
from pokevla.features.feature_reader import FeatureReader
from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe, TrainRecipe

SIZE, MASK, MICRO = 224, 112, 8
OPERATIONS = 6000
COPIED = 64 << 20
"""Bytes that `memcpy` copies."""


def open_batches(recipe: TrainRecipe, cache: Path | None) -> MakeBatch:
    """What makes the batches of a recipe; `cache` of robot data, None for batches without masks and features."""
    mixture = open_mixture(recipe.data, "robot" if isinstance(recipe, PosttrainRecipe) else "vlm")
    if not isinstance(recipe, PosttrainRecipe):
        return batch_maker(recipe, mixture, VLMSampleMaker(mixture, 0, WordTokenizer(), SIZE))
    if cache is None:
        return batch_maker(recipe, mixture, RobotSampleMaker(mixture, 0, WordTokenizer(), SIZE, None))
    features = [FeatureReader.of(cache, dataset) for dataset in mixture.datasets]
    return batch_maker(recipe, mixture, RobotSampleMaker(mixture, 0, WordTokenizer(), SIZE, MASK, features))


def recipe_of(kind: type[PosttrainRecipe] | type[PretrainRecipe], root: Path) -> TrainRecipe:
    """A recipe that trains on one dataset."""
    return kind.model_validate(
        {
            "kind": "posttrain" if kind is PosttrainRecipe else "pretrain",
            "name": "benchmark",
            "data": {"datasets": [{"path": str(root)}], "reader_threads": 1, "prefetch_batches": 4},
            "optim": {"lr": 1e-3},
            "batch": {"global": MICRO, "micro": MICRO},
            "steps": 1,
        }
    )


def small_operations() -> None:
    """6,000 small torch operations."""
    value = torch.ones(8)
    for _ in range(OPERATIONS // 2):
        value = value * 1.0 + 0.0


def _waited_for_core_s() -> float:
    """Seconds in which this thread could have run but had no core."""
    return int(Path("/proc/thread-self/schedstat").read_text(encoding="utf-8").split()[1]) / 1e9


NEIGHBOUR = """
import io, numpy as np
from PIL import Image
buffer = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(buffer, "JPEG")
print("ready", flush=True)
while True:
    np.asarray(Image.open(buffer).resize((224, 224))).transpose(2, 0, 1).copy()
"""
"""A process that decodes and resizes pictures, and has nothing to do with this one."""


def interleaved(sides: dict[str, tuple[Callable[[], object], Callable[[], object]]], rounds: int) -> dict[str, float]:
    """Median seconds of the small operations on each side; (before, after) are called around each of its rounds."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (before, after) in sides.items():
            before()
            begun, delayed = time.perf_counter(), _waited_for_core_s()
            small_operations()
            times[name].append(time.perf_counter() - begun - (_waited_for_core_s() - delayed))
            after()
    return {name: float(np.median(each)) for name, each in times.items()}


def main_thread(recipe: TrainRecipe, cache: Path, rounds: int) -> list[dict[str, Any]]:
    """The rows of `main_thread`. What is beside the main thread runs in its own rounds and is stopped in the others."""
    mixture = open_mixture(recipe.data, "robot")
    features = [FeatureReader.of(cache, dataset) for dataset in mixture.datasets]
    samples = RobotSampleMaker(mixture, 0, WordTokenizer(), SIZE, MASK, features)
    shared: dict[str, Any] = {"rank": 0, "world_size": 1, "start_position": 0}
    process = DataProcess(4)

    def signalled(pid: int, number: signal.Signals) -> Callable[[], object]:
        return lambda: os.kill(pid, number)

    with (
        ProcessLoader(process, open_batches, (recipe, cache), micro=MICRO, threads=1, **shared) as loader,
        build_loader(recipe, mixture, samples, **shared) as threads,
        subprocess.Popen([sys.executable, "-c", NEIGHBOUR], stdout=subprocess.PIPE) as neighbour,
    ):
        try:
            next(loader)
            next(threads)
            assert neighbour.stdout is not None
            neighbour.stdout.readline()

            def idle() -> None:
                while not all(each.done() for each in threads._waiting):
                    time.sleep(0.01)

            def busy() -> None:
                os.kill(process.pid, signal.SIGCONT)
                next(loader)

            for pid in (process.pid, neighbour.pid):
                os.kill(pid, signal.SIGSTOP)
            found = interleaved(
                {
                    "alone": (idle, idle),
                    "loader": (busy, signalled(process.pid, signal.SIGSTOP)),
                    "neighbour": (
                        signalled(neighbour.pid, signal.SIGCONT),
                        signalled(neighbour.pid, signal.SIGSTOP),
                    ),
                    "threads": (lambda: next(threads), idle),
                },
                rounds,
            )
            os.kill(process.pid, signal.SIGCONT)
        finally:
            neighbour.kill()
    alone, beside = found["alone"], found["loader"]
    return [
        row("main_thread/alone", beside * 1e3, "ms", f"alone {alone * 1e3:.1f} ms", alone / beside),
        row(
            "main_thread/neighbour", beside * 1e3, "ms", f"{found['neighbour'] * 1e3:.1f} ms",
            found["neighbour"] / beside,
        ),
        row("main_thread/threads", found["threads"] * 1e3, "ms", f"alone {alone * 1e3:.1f} ms",
            alone / found["threads"]),
    ]  # fmt: skip


def in_slots(make: MakeBatch) -> Callable[[], object]:
    """Makes a batch as the loader's process does: in the next of four slots, which keep their memory."""
    slots = itertools.cycle([SlotWriter(new_slot(), [64 << 20]) for _ in range(4)])
    positions = np.arange(MICRO)

    def run() -> None:
        slot = next(slots)
        slot.begin()
        slot.pack(make(positions, slot.allocate))

    for _ in range(4):
        run()  # touches the memory of each slot
    return run


def photographs(folder: Path) -> dict[str, Callable[[], object]]:
    """Batches of questions about pictures of 640 x 480 px, whole and reduced by the decoder."""
    recipe = recipe_of(PretrainRecipe, write_questions(folder / "photographs", 2 * MICRO, (640, 480)))
    reduced = recipe.data.model_copy(update={"reduce_in_decoder": True})
    return {
        "photograph": in_slots(open_batches(recipe, None)),
        "reduced": in_slots(open_batches(recipe.model_copy(update={"data": reduced}), None)),
    }


def whole_batches(robot: TrainRecipe, cache: Path, vlm: TrainRecipe, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """The rows of `batch_pocket` and `batch_vlm`."""
    reader = open_mixture(robot.data, "robot").datasets[0]
    shards = ShardReader(reader)
    pictures = [
        payload for number in range(MICRO) for name, payload in shards.read(number).items() if name.endswith(".jpg")
    ]

    def decode() -> None:
        for payload in pictures:
            Image.open(io.BytesIO(payload)).load()

    target, source = np.ones(COPIED, dtype=np.uint8), np.ones(COPIED, dtype=np.uint8)
    rival = webdataset_batches(folder, LAYOUTS["pocket"], SIZE, MASK, MICRO)
    fast = robot.model_copy(update={"data": robot.data.model_copy(update={"image_filter": "bilinear_torch"})})
    sides: dict[str, Callable[[], object]] = {
        "ours": in_slots(open_batches(fast, cache)),
        "pillow": in_slots(open_batches(robot, cache)),
        "vlm": in_slots(open_batches(vlm, None)),
        **photographs(folder),
        "decode": decode,
        "webdataset": lambda: next(rival),
        "memcpy": lambda: np.copyto(target, source),
    }
    try:
        sides["lerobot"] = lerobot_batches(folder / "lerobot", SIZE, MICRO)
        sides["pictures"] = in_slots(open_batches(fast, None))
    except ImportError as error:
        print(f"batch_pocket/lerobot is left out: lerobot is not installed ({error}).")
    best = {name: seconds / MICRO * 1e3 for name, seconds in best_seconds(sides, rounds).items()}
    ours = best["ours"]
    pace = COPIED / (best["memcpy"] * MICRO * 1e6)  # GB/s
    compared = [("webdataset", "webdataset", ours), ("webdataset_pillow", "webdataset", best["pillow"])]
    compared.append(("decode", "decode", ours))
    if "lerobot" in best:
        compared += [("lerobot", "lerobot", best["pictures"]), ("lerobot_whole", "lerobot", ours)]
    return [
        *(
            row(f"batch_pocket/{name}", value, "ms/sample", f"{rival} {best[rival]:.2f} ms", best[rival] / value)
            for name, rival, value in compared
        ),
        row("batch_pocket", 1e3 / ours, "samples/s", f"Pillow {1e3 / best['pillow']:.0f}", best["pillow"] / ours),
        row("batch_pocket/memcpy", pace, "GB/s"),
        row("batch_vlm", 1e3 / best["vlm"], "samples/s"),
        row("batch_vlm/photograph", 1e3 / best["reduced"], "samples/s", f"whole {1e3 / best['photograph']:.0f}",
            best["photograph"] / best["reduced"]),
    ]  # fmt: skip


def padding(vlm: TrainRecipe) -> list[dict[str, Any]]:
    """The rows of `padding`."""
    tokens: dict[str, tuple[int, int]] = {}  # real ones, and with padding
    lengths = np.empty(0, dtype=np.int64)
    for name, is_sorted in (("limit", True), ("unsorted", False)):
        data = vlm.data.model_copy(update={"sort_by_length": is_sorted, "blank_images": True})
        batch = vlm.batch.model_copy(update={"global_": 64, "micro": 4})
        make = open_batches(vlm.model_copy(update={"data": data, "batch": batch}), None)
        masks = [make(np.arange(start, start + 4), page_aligned).attention_mask for start in range(0, 256, 4)]
        lengths = np.sort(np.concatenate([mask.sum(dim=1).numpy() for mask in masks]))
        tokens[name] = int(lengths.sum()), sum(mask.numel() for mask in masks)
    limit = int(lengths.reshape(-1, 4).max(axis=1).sum()) * 4
    best = f"perfect sort {100 * (1 - int(lengths.sum()) / limit):.1f} %"
    return [
        row(f"padding/{name}", 100 * (1 - real / padded), "% padding", best, limit / padded)
        for name, (real, padded) in tokens.items()
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    rounds = 3 if options.quick else 20
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        robot_root, cache = write_robot(folder / "robot", LAYOUTS["pocket"], random_records(LAYOUTS["pocket"], 32))
        robot = recipe_of(PosttrainRecipe, robot_root)
        vlm = recipe_of(PretrainRecipe, write_questions(folder / "vlm", 256))
        rows = main_thread(robot, cache, 40 if options.quick else 160)
        rows += whole_batches(robot, cache, vlm, folder, rounds)
        rows += padding(vlm)
    report(rows, options.json)


if __name__ == "__main__":
    main()
