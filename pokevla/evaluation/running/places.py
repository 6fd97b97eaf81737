"""Where the workers of an evaluation run: with which renderer, on which GPU, on which core."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pokevla.simulation.simulator import choose_gl_backend, visible_gpus


@dataclass(frozen=True)
class Place:
    """One worker's share of the machine."""

    gpu: str | None = None
    """Index of the GPU that it renders on; None: software, or one that the user has chosen."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the process."""
    cores: frozenset[int] = frozenset()
    """Cores that it may use; empty: all."""


def plan_places(
    count: int, *, pin: bool = False, gpus: Sequence[str] | None = None, cores: Sequence[int] | None = None
) -> list[Place]:
    """One place for each of `count` workers. Chooses the renderer of this process and its workers
    (`choose_gl_backend`).

    With EGL, and unless the user has set MUJOCO_EGL_DEVICE_ID, workers are spread evenly over the visible GPUs; without
    that MuJoCo would put all of them on the first.

    Args:
        count: number of workers.
        pin: give each worker a core of its own, if there are enough. For machines that no other job shares.
        gpus: indices of the GPUs; None: ask the driver.
        cores: those that may be used; None: all of this process.
    """
    spread = choose_gl_backend() == "egl" and "MUJOCO_EGL_DEVICE_ID" not in os.environ
    devices = list(visible_gpus() if gpus is None else gpus) if spread else []
    free = sorted(os.sched_getaffinity(0) if cores is None else cores)
    pinned = pin and count <= len(free)
    return [
        _place(devices[number % len(devices)] if devices else None, free[number] if pinned else None)
        for number in range(count)
    ]


def describe_places(places: Sequence[Place]) -> str:
    """`osmesa` or `egl on GPU 0, 1`, for the terminal and the summary."""
    backend = os.environ.get("MUJOCO_GL") or "MuJoCo's default"
    gpus = list(dict.fromkeys(place.gpu for place in places if place.gpu is not None))
    return f"{backend} on GPU {', '.join(gpus)}" if gpus else backend


def _place(gpu: str | None, core: int | None) -> Place:
    # robosuite refuses a device that is not in CUDA_VISIBLE_DEVICES; a worker uses no CUDA, so both can name it.
    variables = {} if gpu is None else {"MUJOCO_EGL_DEVICE_ID": gpu, "CUDA_VISIBLE_DEVICES": gpu}
    return Place(gpu, variables, frozenset() if core is None else frozenset({core}))
