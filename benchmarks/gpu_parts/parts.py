"""The parts of the check. Each returns its figures, and raises `Missed` where one is beyond its bound."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_parts.runs import Job, command, train, write_recipe

LOSS_BOUNDS = {"first": 0.03, "mean": 0.06}
"""Largest relative difference of the losses in bf16 on the device from those in fp32 on the CPU: in the first step,
where the weights are the same, and in the mean over all steps."""
MEMORY_BOUND = 0.15
"""The plan's estimate of the peak memory may be this far off."""
PEAK_TFLOPS = {
    "H200": 989.0,
    "H100": 989.0,
    "GH200": 989.0,
    "B200": 2250.0,
    "A100": 312.0,
    "L40S": 362.0,
    "4090": 165.0,
}
"""Dense bf16 peaks by a word in the device's name (NVIDIA's data sheets)."""
TIMED_FROM = 4
"""Steps before this one warm up: kernels are chosen, memory is reserved, blocks are compiled."""


@dataclass(frozen=True)
class Setting:
    """Where the check runs."""

    work: Path
    device: str
    quick: bool

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to check."""
        return self.device != "cpu"


class Missed(Exception):
    """A figure is beyond its bound. `figures` are all that were measured."""

    def __init__(self, message: str, figures: dict[str, Any]) -> None:
        super().__init__(message)
        self.figures = figures


def machine(setting: Setting) -> dict[str, Any]:
    """Device, versions, and the rate of large bf16 matrix products, which is the practical peak."""
    import torch

    figures: dict[str, Any] = {"torch": torch.__version__, "cuda_build": torch.version.cuda, "device": "CPU"}
    if setting.on_gpu:
        if not torch.cuda.is_available():
            raise Missed("torch can use no GPU here; see `pokevla doctor`", figures)
        from torch.cuda import nccl

        properties = torch.cuda.get_device_properties(0)
        figures |= {
            "device": properties.name,
            "memory_gib": properties.total_memory / 2**30,
            "capability": list(torch.cuda.get_device_capability(0)),
            "nccl": ".".join(map(str, nccl.version())),
            "nominal_tflops": nominal_peak(properties.name),
        }
    from gpu_parts.kernels import matrix_tflops

    figures["measured_tflops"] = matrix_tflops(setting.device, 8192 if setting.on_gpu else 512)
    return figures


def nominal_peak(name: str) -> float | None:
    """Dense bf16 TFLOP/s of a device by its name; None if it is not in the table."""
    return next((peak for word, peak in PEAK_TFLOPS.items() if word in name), None)


def train_tiny(setting: Setting) -> dict[str, Any]:
    """End to end at size tiny."""
    return _compare("tiny", setting, batch=8, steps=4 if setting.quick else 24)


def train_mini(setting: Setting) -> dict[str, Any]:
    """End to end at size mini."""
    return _compare("mini", setting, batch=4 if setting.quick else 16, steps=2 if setting.quick else 16)


def _compare(preset: str, setting: Setting, *, batch: int, steps: int) -> dict[str, Any]:
    """Train on the CPU in fp32 and on the device in bf16, with DeepSpeed, and compare the losses step by step."""
    exact = train(Job(f"{preset}_cpu_fp32", preset, "fp32", "cpu", batch, steps), setting.work)
    rounded = train(Job(f"{preset}_bf16", preset, "bf16", setting.device, batch, steps), setting.work)
    expected, measured = ([line["loss"] for line in lines] for lines in (exact, rounded))
    differences = [abs(a - b) / abs(b) for a, b in zip(measured, expected, strict=True)]
    figures = {
        "losses_cpu_fp32": expected,
        "losses_bf16": measured,
        "first": differences[0],
        "mean": statistics.mean(differences),
        "seconds_per_step": _per_step(rounded),
    }
    if not all(map(math.isfinite, measured)):
        raise Missed("a loss is not finite", figures)
    for name, bound in LOSS_BOUNDS.items():
        if figures[name] > bound:
            raise Missed(f"the losses differ by {figures[name]:.3f} ({name}), more than {bound}", figures)
    return figures


def full_size(setting: Setting) -> dict[str, Any]:
    """Steps of the paper's model with LoRA and all three losses: seconds, MFU, data wait, memory beside the plan's."""
    return _time_steps("full_size", setting)


def full_size_compiled(setting: Setting) -> dict[str, Any]:
    """The same with compiled blocks."""
    return _time_steps("full_size_compiled", setting, "compile=true")


def _time_steps(name: str, setting: Setting, *overrides: str) -> dict[str, Any]:
    preset = "pocket" if setting.on_gpu else "mini"
    steps, batch = (12, 8) if setting.on_gpu else (TIMED_FROM + 2, 2)
    peak = _peak(setting)
    job = Job(
        name, preset, "bf16", setting.device, batch, steps, rank=64, peak_tflops=peak or 1.0,
        overrides=("activation_checkpointing=false", *overrides),
    )  # fmt: skip
    planned = json.loads(command("plan", write_recipe(job, setting.work), *job.overrides, "--json"))
    lines = train(job, setting.work, to_the_end=False)
    seconds = _per_step(lines)
    figures: dict[str, Any] = {
        "preset": preset,
        "micro_batch": batch,
        "losses": [line["loss"] for line in lines],
        "seconds_per_step": seconds,
        "samples_per_s": batch / seconds,
        "data_wait_share": statistics.mean(line["data_wait_share"] for line in lines[TIMED_FROM:]),
        "planned_flops_per_sample": planned["flops_per_sample"],
        "tflops": batch / seconds * planned["flops_per_sample"] / 1e12,
    }
    if peak is not None:
        figures["mfu"] = figures["tflops"] / peak
    if setting.on_gpu:
        figures |= {
            "memory_gib": max(line.get("gpu_memory_gib", 0.0) for line in lines),
            "planned_memory_gib": planned["memory"][planned["stage"]]["total"],
        }
        figures["memory/plan"] = figures["memory_gib"] / figures["planned_memory_gib"]
        if abs(figures["memory/plan"] - 1) > MEMORY_BOUND:
            raise Missed(f"peak memory is {figures['memory/plan']:.2f} of what `pokevla plan` says", figures)
    return figures


def _peak(setting: Setting) -> float | None:
    """Peak of the device in TFLOP/s: nominal if known, otherwise None, and always None on a CPU."""
    if not setting.on_gpu:
        return None
    import torch

    return nominal_peak(torch.cuda.get_device_name(0))


def _per_step(lines: list[dict[str, Any]]) -> float:
    """Median seconds of a step, warm-up left out where there are enough steps."""
    timed = lines[TIMED_FROM:] or lines[1:] or lines
    return statistics.median(line["step_s"] for line in timed)
