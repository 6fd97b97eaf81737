"""Whether the GPUs that a recipe asks for can be used on this machine. Asked in a child process: importing torch takes
seconds, and a driver that hangs must not hang this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass

from pokevla.errors import EnvironmentSetupError

PROBE_TIMEOUT_S = 180.0
"""Importing torch from a busy file system and initialising a GPU may take minutes."""
HIDE = {"CUDA_VISIBLE_DEVICES": ""}
"""Environment of a rank that trains on the CPU although the machine has GPUs."""
ALLOW_CPU = "Or train on the CPU: add --allow-cpu."
_PROBE = """
import json, torch
reason = ""
try:
    torch.cuda.init()
except (RuntimeError, AssertionError) as error:
    reason = str(error).strip().splitlines()[0]
print(json.dumps([0 if reason else torch.cuda.device_count(), torch.__version__, torch.version.cuda, reason]))
"""


@dataclass(frozen=True)
class GpuProbe:
    """What torch can use on this machine, and why not more."""

    usable: int
    torch: str  # version
    cuda_build: str | None  # CUDA version that torch was built for; None: a CPU build
    driver: str | None  # version of the NVIDIA driver; None: it does not answer
    reason: str  # why no GPU is usable, in torch's words

    @property
    def facts(self) -> str:
        """Driver and build in one phrase."""
        build = f"built for CUDA {self.cuda_build}" if self.cuda_build else "built for the CPU only"
        return f"NVIDIA driver {self.driver or 'not found'}, torch {self.torch} {build}"


def probe_gpus(timeout_s: float = PROBE_TIMEOUT_S) -> GpuProbe:
    """Ask torch, in a child process, which GPUs it can use.

    Raises:
        EnvironmentSetupError: no answer within `timeout_s`, or torch cannot be imported.
    """
    command = [sys.executable, "-c", _PROBE]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, encoding="utf-8", errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentSetupError(
            f"torch has not found out within {timeout_s:g} s whether it can use a GPU: the driver hangs.",
            f"See `nvidia-smi`, or choose another machine. {ALLOW_CPU}",
        ) from None
    try:
        usable, version, build, reason = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise EnvironmentSetupError(f"torch cannot be used here: {last}", "Try `pokevla doctor`.") from None
    return GpuProbe(usable, version, build, _driver(), reason)


def _driver() -> str | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def refuse_missing_gpus(needed: int, probe: GpuProbe) -> None:
    """Refuse to start if fewer than `needed` GPUs are usable.

    Raises:
        EnvironmentSetupError: names driver, CUDA build and what to do.
    """
    if probe.usable >= needed:
        return
    asked = f"The recipe asks for {needed} GPU(s) on this machine (resources.gpus_per_node)"
    if probe.usable > 0:
        raise EnvironmentSetupError(
            f"{asked}, and only {probe.usable} can be used ({probe.facts}).",
            f"Set resources.gpus_per_node={probe.usable}, or check CUDA_VISIBLE_DEVICES and `nvidia-smi`.",
        )
    reason = f": {probe.reason.rstrip('.')}" if probe.reason else ""
    raise EnvironmentSetupError(
        f"{asked}, and none can be used{reason} ({probe.facts}).", f"{_remedy(probe)} {ALLOW_CPU}"
    )


def _remedy(probe: GpuProbe) -> str:
    if probe.cuda_build is None:
        return "Install a CUDA build of torch (https://pytorch.org/get-started/locally)."
    if probe.driver is None:
        return "Start it on a machine with an NVIDIA GPU and driver; `pokevla submit` finds one on a cluster."
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides the GPUs: unset it."
    return f"Update the driver to one for CUDA {probe.cuda_build}, or install a torch built for this driver."
