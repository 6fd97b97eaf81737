"""A run killed anywhere and resumed ends bit-identical to one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

pytestmark = pytest.mark.simulator


def _kill_after_checkpoint(process: subprocess.Popen[bytes], run: Path, step: int) -> None:
    """SIGKILL the command and all of its ranks once the checkpoint of `step` is complete."""
    marker = run / "checkpoints" / f"step-{step:08d}" / "COMPLETE.json"
    deadline = time.monotonic() + 300
    while not marker.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no checkpoint came"
        os.sched_yield()
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        member.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_and_resumed_run_ends_bit_identical(
    whole_way: Path, pokevla, recipes: Path, repository: Path, command_environment: dict[str, str]
):
    arguments = ["train", str(recipes / "posttrain.yaml"), "name=killed", "steps=8", "checkpoint.keep_last=4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pokevla.cli.main", *arguments],
        cwd=repository,
        env=command_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    run = whole_way / "killed"
    _kill_after_checkpoint(process, run, 4)
    assert not (run / "export").exists()

    resumed = pokevla("resume", run)

    assert resumed.returncode == 0, resumed.stderr
    assert '"resumed"' in (run / "events.jsonl").read_text()
    undisturbed = load_file(whole_way / "posttrain" / "export" / "model.safetensors")
    after_kill = load_file(run / "export" / "model.safetensors")
    assert undisturbed.keys() == after_kill.keys()
    different = [name for name in undisturbed if not undisturbed[name].equal(after_kill[name])]
    assert different == []
