"""Workers are spread over GPUs and cores."""

from __future__ import annotations

import pynvml
import pytest

from pokevla.evaluation.running.places import Place, describe_places, plan_places
from pokevla.simulation import simulator


def test_workers_are_spread_over_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    places = plan_places(5, gpus=["0", "3"])
    assert [place.gpu for place in places] == ["0", "3", "0", "3", "0"]
    assert places[1].variables == {"MUJOCO_EGL_DEVICE_ID": "3", "CUDA_VISIBLE_DEVICES": "3"}
    assert describe_places(places) == "egl on GPU 0, 3"


def test_the_users_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "1")
    assert plan_places(2, gpus=["0", "1"]) == [Place(), Place()]
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID")
    assert plan_places(1, gpus=["0"]) == [Place()]
    assert describe_places([Place()]) == "osmesa"


def test_cores_are_given_out_once_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert [place.cores for place in plan_places(2, pin=True, cores=[4, 7])] == [{4}, {7}]
    assert [place.cores for place in plan_places(3, pin=True, cores=[4, 7])] == [frozenset()] * 3


class Driver:
    """NVML with three GPUs."""

    NVMLError = pynvml.NVMLError

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}abc"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, ["0", "1", "2"]), ("2,0", ["2", "0"]), ("GPU-1abc", ["1"]), ("", []), ("7", [])],
)
def test_visible_gpus_are_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[str]
) -> None:
    driver = Driver()
    for name in ("nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex", "nvmlDeviceGetUUID"):
        monkeypatch.setattr(pynvml, name, getattr(driver, name))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert simulator.visible_gpus() == expected


def test_software_renders_where_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", Driver(broken=True).nvmlInit)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert simulator.visible_gpus() == []
    assert simulator.choose_gl_backend() == "osmesa"


def test_a_gpu_renders_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "visible_gpus", lambda: ["0"])
    monkeypatch.setattr(simulator, "find_library", lambda name: "libEGL.so.1" if name == "EGL" else None)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MUJOCO_GL", "x")  # so that it is put back afterwards
    monkeypatch.delenv("MUJOCO_GL")
    assert simulator.choose_gl_backend() == "egl"
