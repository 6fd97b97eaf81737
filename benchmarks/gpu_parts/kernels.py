"""Single kernels on the device: the rate of matrix products, attention, a policy's chunk, copies beside compute."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_parts.parts import Missed, Setting
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

BF16_ACTION_BOUND = 0.15
"""Largest difference of a normalised action between a policy in bf16 and one in fp32, with random weights."""


def seconds_of(work: Callable[[], object], device: str, repeats: int = 10) -> float:
    """Median seconds of `work` on the device, after one call to warm up."""
    work()
    times = []
    for _ in range(repeats):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def matrix_tflops(device: str, side: int) -> float:
    """Rate of a square bf16 matrix product."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: a @ b, device) / 1e12


def attention(setting: Setting) -> dict[str, Any]:
    """Causal attention of the language model of pocket, forward and backward: PyTorch's flash kernel against its plain
    (math) one. flash-attn is not used (docs/performance.md)."""
    batch, heads, length = (8, 14, 640) if setting.on_gpu else (1, 2, 160)
    shape = (batch, heads, length, 64)
    query, key, value = (
        torch.randn(shape, device=setting.device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)
    )
    seconds, outputs = {}, {}
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("math", SDPBackend.MATH)):
        with sdpa_kernel(backend):

            def run() -> torch.Tensor:
                output = scaled_dot_product_attention(query, key, value, is_causal=True)
                output.sum().backward()
                return output

            seconds[name] = seconds_of(run, setting.device)
            outputs[name] = run().float()
    difference = float((outputs["flash"] - outputs["math"]).abs().max())
    figures = {f"{name}_ms": 1e3 * value for name, value in seconds.items()}
    figures |= {"math/flash": seconds["math"] / seconds["flash"], "largest_difference": difference}
    if difference > 0.05:
        raise Missed(f"the kernels differ by {difference:.3f}", figures)
    return figures


def acting(setting: Setting) -> dict[str, Any]:
    """One chunk of a policy with random weights: milliseconds, memory, and its actions in bf16 against fp32."""
    from pokevla.data.statistics import compute_statistics
    from pokevla.embodiment.libero import LIBERO
    from pokevla.model.building import build_vla
    from pokevla.model.presets import preset
    from pokevla.model.tokenizers.loading import load_tokenizer
    from pokevla.policy.placement import place_for_acting
    from pokevla.policy.policy import Policy

    rng = np.random.default_rng(0)
    model = build_vla(preset("pocket" if setting.on_gpu else "tiny"), seed=0).eval()
    actions, states = rng.uniform(-1, 1, (50, LIBERO.action_width)), rng.uniform(-1, 1, (50, LIBERO.proprio_width))
    images = rng.integers(0, 255, (1, LIBERO.num_views, 256, 256, 3), np.uint8)

    def policy(dtype: torch.dtype) -> Policy:
        place_for_acting(model, setting.device, dtype)
        statistics_ = compute_statistics([actions], [states], LIBERO)
        return Policy(model, load_tokenizer(), statistics_, LIBERO, model.config.vlm.image_size, 0.9, None)

    figures: dict[str, Any] = {}
    chunks = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        acting = policy(dtype)
        with torch.inference_mode():
            chunks[name] = acting.run(acting.prepare(images, states[:1], ["pick up the bowl"])).actions.float().cpu()
        if setting.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = seconds_of(lambda acting=acting: acting.act(images, states[:1], ["pick up the bowl"]), setting.device)
        figures[f"{name}_ms"] = 1e3 * seconds
        if setting.on_gpu:
            figures[f"{name}_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    difference = float((chunks["bf16"] - chunks["fp32"]).abs().max())
    figures["largest_difference"] = difference
    if difference > BF16_ACTION_BOUND:
        raise Missed(f"actions in bf16 differ by {difference:.3f} from those in fp32", figures)
    return figures


def copies(setting: Setting) -> dict[str, Any]:
    """Copies of a batch to the device beside compute: alone, compute alone, both at once. An overlap of 1 means that
    the shorter of the two costs nothing; a CPU has no copies to hide."""
    count, side = (8, 4096) if setting.on_gpu else (2, 256)
    batch = torch.empty(count, 2, 256, 64, 64, dtype=torch.int8)  # SAM features of the paper's micro-batch
    matrix = torch.randn(side, side, device=setting.device, dtype=torch.bfloat16)
    stream = torch.cuda.Stream() if setting.on_gpu else None
    batch = batch.pin_memory() if setting.on_gpu else batch
    target = torch.empty_like(batch, device=setting.device)

    def copy() -> None:
        if stream is None:
            target.copy_(batch)
            return
        with torch.cuda.stream(stream):
            target.copy_(batch, non_blocking=True)

    def compute() -> None:
        for _ in range(4):
            torch.mm(matrix, matrix)

    def both() -> None:
        copy()
        compute()

    seconds = {work.__name__: seconds_of(work, setting.device) for work in (copy, compute, both)}
    figures = {f"{name}_ms": 1e3 * value for name, value in seconds.items()}
    figures["copy_gb_per_s"] = batch.numel() / 1e9 / seconds["copy"]
    if setting.on_gpu:
        shorter = min(seconds["copy"], seconds["compute"])
        figures["overlap"] = (seconds["copy"] + seconds["compute"] - seconds["both"]) / shorter
    return figures


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
