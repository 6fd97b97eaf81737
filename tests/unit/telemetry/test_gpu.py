"""What NVML tells, and what happens where there is none."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pynvml
import pytest

from pokevla.telemetry.gpu import GIB, GpuSampler, mean_reading, read_gpu, start_gpu_sampler


def nvml(**answers: object) -> SimpleNamespace:
    """NVML as it answers for one device, in the library's own types."""
    utilisation, memory = pynvml.c_nvmlUtilization_t(), pynvml.c_nvmlMemory_t()
    utilisation.gpu, utilisation.memory = 87, 40
    memory.total, memory.used, memory.free = 80 * GIB, 60 * GIB, 20 * GIB
    known = {
        "nvmlDeviceGetUtilizationRates": lambda _handle: utilisation,
        "nvmlDeviceGetMemoryInfo": lambda _handle: memory,
        "nvmlDeviceGetPowerUsage": lambda _handle: 412_500,
        "NVMLError_NotSupported": pynvml.NVMLError_NotSupported,  # pyright: ignore[reportAttributeAccessIssue]
    }
    return SimpleNamespace(**(known | answers))


def test_figures_have_our_units() -> None:
    assert read_gpu(nvml(), None) == {"gpu_utilisation": 0.87, "gpu_memory_gib": 60.0, "gpu_power_w": 412.5}


def test_what_a_device_does_not_support_is_left_out() -> None:
    def refuse(_handle: object) -> float:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    values = read_gpu(nvml(nvmlDeviceGetUtilizationRates=refuse), None)
    assert values == {"gpu_memory_gib": 60.0, "gpu_power_w": 412.5}


def test_means_of_an_interval_and_the_peak_of_memory() -> None:
    readings = [
        {"gpu_utilisation": 0.5, "gpu_memory_gib": 10.0, "gpu_power_w": 100.0},
        {"gpu_utilisation": 1.0, "gpu_memory_gib": 30.0},
    ]
    assert mean_reading(readings) == {"gpu_utilisation": 0.75, "gpu_memory_gib": 30.0, "gpu_power_w": 100.0}
    assert mean_reading([]) == {}


def test_sampler_gives_each_reading_to_one_interval() -> None:
    read_twice = threading.Event()
    answers = iter([{"gpu_power_w": 100.0}, {"gpu_power_w": 300.0}])

    def read() -> dict[str, float] | None:
        answer = next(answers, None)
        if answer is None:
            read_twice.set()
        return answer

    sampler = GpuSampler(read, period_s=0.001)
    assert read_twice.wait(timeout=60)
    assert sampler.take() == {"gpu_power_w": 200.0}
    assert sampler.take() == {}
    sampler.close()


def test_a_machine_without_nvml_says_so_and_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        pass
    else:
        pytest.skip("this machine has NVML")
    monkeypatch.setattr(logging.getLogger("pokevla"), "propagate", True)
    with caplog.at_level(logging.WARNING, "pokevla"):
        assert start_gpu_sampler("GPU-00000000-0000-0000-0000-000000000000") is None
    assert "GPU are not recorded: NVML reports" in caplog.text
