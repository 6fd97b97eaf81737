"""`pokevla train` as a user starts it, on two ranks: one rank hangs; later the run is asked to stop, then continues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pokevla.telemetry.heartbeat import read_heartbeats
from pokevla.telemetry.jsonl import read_jsonl

pytestmark = pytest.mark.alone
Run = Callable[..., subprocess.CompletedProcess[str]]
SETTINGS = ("checkpoint.every_steps=100", "log.every_steps=1", "guards.step_timeout_s=20")


def until_step(
    arguments: list[str], environment: dict[str, str], step: int, act: Callable[[int], None]
) -> tuple[int, str]:
    """Start a command, call `act` with its pid once it has logged `step`; (exit code, the rest of stderr)."""
    command = [sys.executable, "-m", "pokevla.cli.main", *arguments]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"step {step}/"):
            act(process.pid)
            break
    rest = process.stderr.read()
    return process.wait(), rest


def test_hung_stopped_and_resumed_run_ends_bit_identical(
    pokevla: Run, write_recipe: Callable[..., Path], tmp_path: Path, whole_run: Path, tiny_run_env: dict[str, str]
) -> None:
    run_dir = tmp_path / "stopped"

    # SIGSTOP makes a rank unresponsive, like a host that swaps or a driver that is stuck.
    code, output = until_step(
        ["train", str(write_recipe("stopped", tmp_path)), *SETTINGS],
        tiny_run_env,
        1,
        lambda _pid: os.kill(read_heartbeats(run_dir)[1].pid, signal.SIGSTOP),
    )
    assert code == 4, output
    stuck = read_heartbeats(run_dir)[1]
    last = output.strip().splitlines()[-1]
    assert f"Behind: rank 1 on {stuck.host}: no heartbeat for" in last
    assert f"pokevla resume {run_dir}" in last
    assert "training/loop.py" in (run_dir / "logs" / "rank_00000.hang").read_text()  # the phase depends on timing
    assert not psutil.pid_exists(stuck.pid), "the stopped rank is gone too"

    # The command is asked to stop: it saves on all ranks.
    code, output = until_step(["resume", str(run_dir)], tiny_run_env, 3, lambda pid: os.kill(pid, signal.SIGTERM))
    assert code == 75, output
    stopped = [row for row in read_jsonl(run_dir / "events.jsonl") if row["event"] == "stopped"]
    assert [row["reason"] for row in stopped] == ["terminated"]
    step = stopped[0]["step"]
    assert 3 <= step < 12
    assert output.strip().splitlines()[-1] == f"saved at step {step}; continue with: pokevla resume {run_dir}"
    assert {one.phase for one in read_heartbeats(run_dir)} == {"stopped"}

    resumed = pokevla("resume", run_dir)
    assert resumed.returncode == 0, resumed.stderr
    exported = [(one / "export" / "model.safetensors").read_bytes() for one in (run_dir, whole_run)]
    assert exported[0] == exported[1]
    events = [row["event"] for row in read_jsonl(run_dir / "events.jsonl")]
    assert events == ["started", "hang", "failed", "started", "saved", "stopped", "resumed", "saved", "finished"]
