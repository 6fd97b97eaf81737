"""GPUs that a recipe asks for and that cannot be used are an error with a remedy, never a silent fall-back."""

from __future__ import annotations

import dataclasses

import pytest

from pokevla.distributed import gpus
from pokevla.distributed.gpus import GpuProbe, probe_gpus, refuse_missing_gpus
from pokevla.errors import EnvironmentSetupError

OLD_DRIVER = GpuProbe(0, "2.14.0", "13.0", "470.57", "The NVIDIA driver on your system is too old.")


def test_enough_gpus_pass() -> None:
    refuse_missing_gpus(2, dataclasses.replace(OLD_DRIVER, usable=2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "NVIDIA driver 470.57, torch 2.14.0 built for CUDA 13.0).*Update the driver to one for CUDA 13.0"),
        ({"cuda_build": None}, "built for the CPU only.*Install a CUDA build of torch"),
        ({"driver": None}, "NVIDIA driver not found.*machine with an NVIDIA GPU"),
        ({"usable": 1}, "only 1 can be used.*resources.gpus_per_node=1"),
    ],
)
def test_driver_build_and_remedy_are_named(changes: dict, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(EnvironmentSetupError, match=words.replace(")", r"\)")) as caught:
        refuse_missing_gpus(2, dataclasses.replace(OLD_DRIVER, **changes))
    assert "asks for 2 GPU(s) on this machine (resources.gpus_per_node)" in str(caught.value)
    assert ("--allow-cpu" in str(caught.value)) == ("usable" not in changes)


def test_hidden_gpus_are_said_to_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(EnvironmentSetupError, match="CUDA_VISIBLE_DEVICES hides the GPUs"):
        refuse_missing_gpus(1, OLD_DRIVER)


def test_a_probe_has_a_limit_and_an_unusable_torch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_PROBE", "import time; time.sleep(60)")
    with pytest.raises(EnvironmentSetupError, match=r"has not found out within 0\.5 s"):
        probe_gpus(timeout_s=0.5)
    monkeypatch.setattr(gpus, "_PROBE", "raise ImportError('libcudart.so.13 is missing')")
    with pytest.raises(EnvironmentSetupError, match=r"cannot be used here: ImportError: libcudart\.so"):
        probe_gpus()
