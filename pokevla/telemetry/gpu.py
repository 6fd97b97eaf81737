"""Utilisation, memory and power of a GPU, through NVML."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pokevla.telemetry.meters import GIB

PERIOD_S = 1.0
"""Seconds between readings. NVML's utilisation covers only the last 1/6 to 1 s, so a single reading says little."""

logger = logging.getLogger(__name__)


def read_gpu(nvml: Any, handle: Any) -> dict[str, float]:
    """Current NVML readings of one device; unsupported ones (such as utilisation of a MIG slice) are left out.

    `gpu_utilisation` is the share of time in which any kernel ran, in [0, 1]; `gpu_memory_gib` is the memory of all
    processes; `gpu_power_w` is in watts.
    """
    questions: dict[str, Callable[[], float]] = {
        "gpu_utilisation": lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        "gpu_memory_gib": lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used / GIB,
        "gpu_power_w": lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000,
    }
    values: dict[str, float] = {}
    for name, ask in questions.items():
        try:
            values[name] = float(ask())
        except nvml.NVMLError_NotSupported:
            continue
    return values


def mean_reading(readings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each quantity over the readings that have it, except memory: the largest. {} without readings."""
    values: dict[str, list[float]] = defaultdict(list)
    for reading in readings:
        for name, value in reading.items():
            values[name].append(value)
    return {
        name: max(series) if name == "gpu_memory_gib" else sum(series) / len(series) for name, series in values.items()
    }


class GpuSampler:
    """Calls `read` every `period_s` seconds in a thread, until it returns None; `take` averages since the last call."""

    def __init__(self, read: Callable[[], dict[str, float] | None], period_s: float = PERIOD_S) -> None:
        self._read = read
        self._period_s = period_s
        self._lock = threading.Lock()
        self._readings: list[dict[str, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="gpu-sampler", daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stop.is_set():
            reading = self._read()
            if reading is None:
                return
            with self._lock:
                self._readings.append(reading)
            self._stop.wait(self._period_s)

    def take(self) -> dict[str, float]:
        """`mean_reading` of the interval since the last call; starts the next interval."""
        with self._lock:
            readings, self._readings = self._readings, []
        return mean_reading(readings)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()


def start_gpu_sampler(uuid: str) -> GpuSampler | None:
    """Sample the GPU with this UUID (as torch reports it); None, with a warning in the log, if NVML fails."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        read_gpu(pynvml, handle)
    except pynvml.NVMLError as error:
        logger.warning("utilisation and power of the GPU are not recorded: NVML reports %s", error)
        return None
    return GpuSampler(lambda: _read_while_it_answers(pynvml, handle))


def _read_while_it_answers(nvml: Any, handle: Any) -> dict[str, float] | None:
    """None after an NVML error. A lost device ends the training anyway; the sampler must not raise first."""
    try:
        return read_gpu(nvml, handle)
    except nvml.NVMLError as error:
        logger.warning("utilisation and power of the GPU are no longer recorded: NVML reports %s", error)
        return None


def gpu_names() -> list[str]:
    """Product names of this machine's GPUs as the driver lists them; [] if NVML does not answer. Without torch."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except pynvml.NVMLError:
        return []
