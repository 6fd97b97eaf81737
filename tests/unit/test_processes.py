"""Workers end when the program that started them is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

CHILD = """
import time
from pokevla.processes import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(600)
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
WORKERS = """
import os, time
from pokevla.simulation.recordings import workers

def build(path):
    def work(number):
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\\n")
        time.sleep(600)
    return work

if __name__ == "__main__":
    workers.load_simulator = lambda: None
    next(workers.run_ordered(build, (PATH,), 2, 2))
"""


def start(tmp_path: Path, program: str, env: dict[str, str]) -> subprocess.Popen[str]:
    path = tmp_path / "program.py"
    path.write_text(program, encoding="utf-8")
    return subprocess.Popen([sys.executable, str(path)], env=env, stdout=subprocess.PIPE, text=True)


def await_that(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a call of the Linux kernel")
def test_a_process_ends_when_its_parent_is_killed(tmp_path: Path, tiny_run_env: dict[str, str]) -> None:
    parent = start(tmp_path, PARENT, tiny_run_env)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not gone(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    await_that(lambda: gone(child))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a call of the Linux kernel")
def test_busy_simulator_processes_end_when_their_program_is_killed(
    tmp_path: Path, tiny_run_env: dict[str, str]
) -> None:
    seen = tmp_path / "pids"
    seen.touch()
    program = start(tmp_path, WORKERS.replace("PATH", repr(str(seen))), tiny_run_env)
    await_that(lambda: len(seen.read_text(encoding="utf-8").splitlines()) == 2)
    pids = [int(line) for line in seen.read_text(encoding="utf-8").splitlines()]
    program.send_signal(signal.SIGKILL)
    program.wait()
    for pid in pids:
        await_that(lambda pid=pid: gone(pid))


def test_the_collector_runs_again_after_a_pause_even_one_that_fails_and_passes_over_what_was_there() -> None:
    code = """
import gc
from pokevla.processes import collector_paused
try:
    with collector_paused():
        kept, was_enabled = [[i] for i in range(1000)], gc.isenabled()
        raise RuntimeError
except RuntimeError:
    print(was_enabled, gc.isenabled(), gc.get_freeze_count() > 1000)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False True True\n"


def test_a_program_ends_without_a_search_for_cycles_but_with_its_exit_handlers() -> None:
    code = """
import atexit, gc
from pokevla.processes import end_without_collection
atexit.register(lambda: print("exit handler", gc.get_freeze_count() > 1000))  # runs after what is registered later
end_without_collection()
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "exit handler True\n"
