"""Compares our consolidation of a sharded checkpoint with DeepSpeed's `zero_to_fp32`: time and peak memory.

python benchmarks/consolidation.py [--quick] [--parameters 2e8] [--work DIR] [--json OUT]

A real engine on two ranks (ZeRO stage 2 and stage 3, bf16 with fp32 master weights) trains a plain torch model of 200
million parameters for one step and saves. Then both sides write one fp32 safetensors file from the same checkpoint,
alternating, each in its own process. The outputs are compared bit for bit at the end. Time and memory exclude imports.

Peak memory is resident memory above that of the imports. It includes pages of mapped files, which the kernel can
reclaim and of which `zero_to_fp32` has many. So memory that cannot be reclaimed (anonymous memory, sampled every 5 ms)
is reported as well.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import run as run_process
from typing import Any

from reporting import report, row

WIDTH = 1024
SIDES = ("zero_to_fp32", "ours", "ours with checksums")
SAMPLE_S = 0.005


# ------------------------------------------------------------------------------------------------ the checkpoint


def write_checkpoint(run_dir: Path, stage: int, parameters: int) -> None:
    """Run one step of a plain model, then save a checkpoint with our store. Called by every rank."""
    import torch
    from torch import nn

    from pokevla.checkpoint.store import save_checkpoint
    from pokevla.distributed.engine import initialise_engine, join_ranks, leave_ranks
    from pokevla.distributed.environment import read_rank
    from pokevla.runs.checkpoints import CheckpointInfo

    info = read_rank()
    join_ranks(info)
    torch.manual_seed(0)

    class Objective(nn.Module):
        """A stack of Linears that returns a scalar, with the attribute name that our objectives use for the model."""

        def __init__(self, layers: int) -> None:
            super().__init__()
            blocks = [nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)) for _ in range(layers)]
            self.model = nn.Sequential(*blocks)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return self.model(batch).float().square().mean()

    objective = Objective(max(parameters // (8 * WIDTH * WIDTH), 1))
    matrices = [p for p in objective.parameters() if p.ndim == 2]
    vectors = [p for p in objective.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": matrices}, {"params": vectors}], lr=1e-4, fused=True)
    engine = initialise_engine(
        objective,
        optimizer,
        {
            "train_batch_size": info.world_size,
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 5000},
        },
    )
    engine.backward(engine(torch.randn(1, WIDTH, dtype=torch.bfloat16)))
    engine.step()
    facts = CheckpointInfo(1, 1, info.world_size, stage, "bf16", recipe_hash="", frozen_hash="")
    save_checkpoint(engine, run_dir, facts)
    leave_ranks()


# ------------------------------------------------------------------------------------------------ the two sides


def consolidate_side(side: str, folder: Path, out: Path) -> Callable[[], None]:
    """The function that runs one side, with all imports done."""
    if side == "zero_to_fp32":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_fp32_state_dict

        from pokevla.runs.checkpoints import STATE

        def theirs() -> None:
            convert_zero_checkpoint_to_fp32_state_dict(
                str(folder), str(out), max_shard_size="1TB", safe_serialization=True, tag=STATE
            )
            with (out / "model.safetensors").open("rb") as file:  # as ours does
                os.fsync(file.fileno())

        return theirs
    from pokevla.files.writing import atomic_folder
    from pokevla.runs.checkpoints import read_info
    from pokevla.runs.verification import verify
    from pokevla.weights.safetensors_files import write_weights
    from pokevla.weights.zero_layout import open_checkpoint

    def ours() -> None:
        info = verify(folder) if side == "ours with checksums" else read_info(folder)
        with atomic_folder(out) as new:
            write_weights(open_checkpoint(folder, info), new, metadata={})

    return ours


def status_kib(key: str) -> int:
    """A value of /proc/self/status in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


@contextmanager
def anonymous_peak(result: dict[str, float]) -> Iterator[None]:
    """Sample anonymous memory during the block and write its peak above the start to `result["anonymous_mib"]`."""
    stop = threading.Event()
    start = highest = status_kib("RssAnon")

    def watch() -> None:
        nonlocal highest
        while not stop.wait(SAMPLE_S):
            highest = max(highest, status_kib("RssAnon"))

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    stop.set()
    thread.join()
    result["anonymous_mib"] = (max(highest, status_kib("RssAnon")) - start) / 1024


def measure_side(side: str, folder: Path, out: Path) -> dict[str, float]:
    """Measure one side once, in this process."""
    action = consolidate_side(side, folder, out)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM (proc(5))
    before_kib, result = status_kib("VmRSS"), {}
    usage, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    with anonymous_peak(result):
        action()
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
    return result | {"cpu_s": cpu_s, "wall_s": wall_s, "resident_mib": (status_kib("VmHWM") - before_kib) / 1024}


# ------------------------------------------------------------------------------------------------ the comparison


def child(*arguments: object) -> dict[str, Any]:
    """Run this script with internal arguments and return the JSON of its last line."""
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    done = run_process(
        [sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True, env=environment
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, arguments))} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(work: Path, stage: int, parameters: int, repeats: int) -> list[dict[str, Any]]:
    """All rows of one ZeRO stage."""
    from pokevla.distributed.process import spawn_ranks
    from pokevla.runs.checkpoints import checkpoint_folder, read_info
    from pokevla.telemetry.logging import LOGS

    run_dir = work / f"stage-{stage}"
    spawn_ranks(
        (__file__, "--make", str(run_dir), str(stage), str(parameters)),
        world_size=2,
        threads=1,
        log_dir=run_dir / LOGS,
    )
    folder = checkpoint_folder(run_dir, 1)
    size_mib = sum(file.size for file in read_info(folder).files) / 2**20
    best: dict[str, dict[str, float]] = {}
    for _ in range(repeats):
        for side in SIDES:
            out = work / side.replace(" ", "-")
            shutil.rmtree(out, ignore_errors=True)
            figures = child("--side", side, folder, out)
            kept = best.setdefault(side, figures)
            for name, value in figures.items():
                best[side][name] = min(kept[name], value) if name.endswith("_s") else max(kept[name], value)
    refuse_different(work / "ours" / "model.safetensors", work / "zero_to_fp32" / "model.safetensors")
    model_mib = (work / "ours" / "model.safetensors").stat().st_size / 2**20
    print(
        f"\nZeRO stage {stage}: checkpoint of {size_mib:.0f} MiB, model of {model_mib:.0f} MiB in fp32; outputs equal"
    )
    shutil.rmtree(run_dir)
    return rows_of(stage, model_mib, best)


def refuse_different(ours: Path, theirs: Path) -> None:
    """End the benchmark if the two files differ in any bit."""
    import torch
    from safetensors import safe_open

    with safe_open(ours, "pt") as one, safe_open(theirs, "pt") as two:
        names = one.keys()
        if {f"model.{name}" for name in names} != set(two.keys()):  # ours are the model's, theirs the objective's
            raise SystemExit("The two sides differ in the names of the weights.")
        for name in names:
            if not torch.equal(one.get_tensor(name), two.get_tensor(f"model.{name}")):
                raise SystemExit(f"The two sides differ in {name}.")


def rows_of(stage: int, model_mib: float, best: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Rows with the best of all repeats, relative to `zero_to_fp32`; below 1 is better."""
    rows = []
    theirs = best["zero_to_fp32"]
    for side in SIDES[1:]:
        for what, key, unit in (
            ("CPU seconds", "cpu_s", "s"),
            ("wall seconds", "wall_s", "s"),
            ("peak resident memory", "resident_mib", "MiB"),
            ("peak anonymous memory", "anonymous_mib", "MiB"),
        ):
            more = {"share_of_model": best[side][key] / model_mib} if unit == "MiB" else {}
            against = f"zero_to_fp32: {theirs[key]:.2f} {unit}"
            name = f"consolidation, stage {stage}, {side}: {what}"
            rows.append(row(name, best[side][key], unit, against, best[side][key] / theirs[key], **more))
    return rows


def main() -> None:
    """Measure, print a table, write JSON if asked."""
    if sys.argv[1:2] == ["--make"]:
        write_checkpoint(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
        return
    if sys.argv[1:2] == ["--side"]:
        print(json.dumps(measure_side(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 million parameters, stage 2 only, once")
    parser.add_argument("--parameters", type=float, default=2e8, help="size of the model")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the best counts")
    parser.add_argument("--work", type=Path, help="where checkpoints are written; 20 bytes per parameter are needed")
    parser.add_argument("--json", type=Path, help="file for the result")
    arguments = parser.parse_args()
    parameters, repeats, stages = int(arguments.parameters), arguments.repeats, (2, 3)
    if arguments.quick:
        parameters, repeats, stages = 20_000_000, 1, (2,)
    with tempfile.TemporaryDirectory(dir=arguments.work) as work:
        rows = [one for stage in stages for one in compare(Path(work), stage, parameters, repeats)]
    report(rows, arguments.json)


if __name__ == "__main__":
    main()
