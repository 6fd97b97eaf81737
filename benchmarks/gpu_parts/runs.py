"""Trainings through the command line, as a user starts them, and what they report of themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_parts.toy_data import write_demonstrations

BENCHMARKS = Path(__file__).resolve().parents[1]
RECIPE = """\
kind: posttrain
name: {name}
output: {output}
seed: 7
extensions: [gpu_parts.noise_teachers]
data:
  datasets: [{{path: {dataset}}}]
  train_split: all
  shuffle_window: 2
cache:
  root: {cache}
  sam: {{kind: sam, preset: {sam}}}
  vggt: null
  teachers: [{{kind: noise_vggt, preset: {preset}}}]
model: {{preset: {preset}}}
trainable: {{vision: lora, projector: lora, language_model: lora}}
lora: {{rank: {rank}, alpha: {alpha}, dropout: 0.0}}
optim: {{lr: 1.0e-3, warmup_fraction: 0.1}}
batch: {{global: {batch}, micro: {batch}}}
steps: {steps}
precision: {precision}
zero: {{stage: 2}}
checkpoint: {{every_steps: 1000000, keep_last: 1}}
log: {{every_steps: 1, grad_norms_every_steps: 0, sinks: [jsonl]}}
resources: {{gpus_per_node: {gpus}, cpu_ranks: 1, threads_per_rank: {threads}, gpu_bf16_tflops: {peak}}}
"""


@dataclass(frozen=True)
class Job:
    """One training of a toy task."""

    name: str
    preset: str
    precision: str
    device: str
    batch: int
    steps: int
    rank: int = 4
    peak_tflops: float = 312.0
    overrides: tuple[str, ...] = ()


class CommandFailed(RuntimeError):
    """A `pokevla` command ended with an error, which is the message."""


def write_recipe(job: Job, work: Path) -> Path:
    """Write the recipe, with data and cache of its preset unless they are there."""
    full_size = job.preset == "pocket"
    dataset = work / ("one_demonstration" if full_size else "demonstrations")  # SAM takes a second an image on a CPU
    if not dataset.exists():
        write_demonstrations(dataset, episodes=1 if full_size else 4)
    path = work / f"{job.name}.yaml"
    text = RECIPE.format(
        name=job.name, output=work / "runs", dataset=dataset, cache=work / "cache", preset=job.preset,
        sam="vit_b" if full_size else job.preset, rank=job.rank, alpha=2 * job.rank, batch=job.batch, steps=job.steps,
        precision=job.precision, gpus=0 if job.device == "cpu" else 1,
        threads=max(1, len(os.sched_getaffinity(0)) - 1), peak=job.peak_tflops,
    )  # fmt: skip
    path.write_text(text, encoding="utf-8")
    command("cache", "build", path)
    return path


def environment() -> dict[str, str]:
    """Environment of every command: the repository and its benchmarks can be imported, and nothing is downloaded."""
    paths = [str(BENCHMARKS.parent), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **offline, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def command(*arguments: object) -> str:
    """Run `pokevla ARGUMENTS` and return what it prints. Raises CommandFailed."""
    words = [sys.executable, "-m", "pokevla.cli.main", *map(str, arguments)]
    done = subprocess.run(words, env=environment(), capture_output=True, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise CommandFailed(f"pokevla {arguments[0]}: {_last_line(done.stderr)}")
    return done.stdout


def train(job: Job, work: Path, *, to_the_end: bool = True) -> list[dict[str, Any]]:
    """Train a job and return its lines of metrics. With `to_the_end` False it is killed once all steps are logged: the
    recipe then asks for more of them, and neither a checkpoint nor an export is written."""
    recipe = write_recipe(job, work)
    overrides = [*job.overrides, *([] if to_the_end else [f"steps={10 * job.steps}"])]
    words = [sys.executable, "-m", "pokevla.cli.main", "train", str(recipe), *overrides]
    metrics, log = work / "runs" / job.name / "metrics.jsonl", work / f"{job.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            words, env=environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                if not to_the_end and len(read_lines(metrics)) >= job.steps:
                    break
                time.sleep(0.2)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = read_lines(metrics)
    if len(lines) < job.steps:
        raise CommandFailed(f"{job.name}: {_last_line(log.read_text(encoding='utf-8', errors='replace'))}")
    return lines


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Complete lines of a training's metrics, those with a loss."""
    if not path.is_file():
        return []
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return [values for line in whole if "loss" in (values := json.loads(line))]


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line]
    return lines[-1] if lines else "no output"
