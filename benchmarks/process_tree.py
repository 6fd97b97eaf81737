"""What a command costs: seconds, CPU seconds, and memory of its whole process tree."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_PERIOD_S = 0.1


@dataclass(frozen=True)
class Cost:
    """Cost of one command."""

    wall_s: float
    cpu_s: float
    """User and system time of the process and of all that it waited for."""
    peak_mib: float
    """Sum of the high-water marks (VmHWM) of all processes of the tree: an upper bound of what they held together.
    Libraries that processes share are counted once for each."""


def run_measured(command: Sequence[str]) -> Cost:
    """Run a command; its output goes to stderr only if it fails.

    Raises RuntimeError if it fails.
    """
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if process.stdout is None:
        raise RuntimeError("the command has no output to read")
    os.set_blocking(process.stdout.fileno(), False)
    marks: dict[int, int] = {}
    said = b""
    while True:
        marks |= _marks(process.pid)
        said = (said + (process.stdout.read() or b""))[-8192:]
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        time.sleep(_PERIOD_S)
    process.returncode = os.waitstatus_to_exitcode(status)
    said += process.stdout.read() or b""
    process.stdout.close()
    if process.returncode:
        sys.stderr.write(said.decode(errors="replace"))
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
    cpu_s = usage.ru_utime + usage.ru_stime
    return Cost(time.monotonic() - begun, cpu_s, sum(marks.values()) / 1024)


def _marks(pid: int) -> dict[int, int]:
    """KiB of the largest memory so far of each process of a tree."""
    try:
        pids = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return {}
    return {each: kib for each in pids if (kib := high_water_kib(each))}


def high_water_kib(pid: int | str = "self") -> int:
    """Largest resident memory so far of a process in KiB; 0 if it has ended.

    Not `ru_maxrss`: that of a new process begins with the memory of the one that started it.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
