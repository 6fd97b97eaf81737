"""Stopping a run reaches its ranks and only them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.live import LiveRun
from monitoring.local_stop import ranks_of, stop_local_run
from pokevla.errors import UsageError
from pokevla.runs.creation import is_locked
from tests.unit.monitoring.run_folders import append, event, make_run

# A parent that holds the lock and starts two ranks that inherit it, as `pokevla train` does.
PARENT = """
import subprocess, sys
from pathlib import Path
from pokevla.runs.creation import run_lock
rank = "import sys, time; sys.stdout.write('u'); sys.stdout.flush(); time.sleep(600)"
with run_lock(Path(sys.argv[1])) as lock:
    ranks = [subprocess.Popen([sys.executable, "-c", rank], pass_fds=(lock,)) for _ in range(2)]
    for one in ranks:
        one.wait()
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run_dir = make_run(tmp_path / "one")
    append(run_dir / "events.jsonl", event("started", 0, step=0))
    return run_dir


@pytest.fixture
def parent(run: Path, tiny_run_env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(run)], env=tiny_run_env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    letters = process.stdout.read(2)  # one letter of each rank: lines of two writers may mix
    assert letters == "uu", f"the parent printed {letters!r}, exit code {process.poll()}"
    yield process
    for rank in ranks_of(run):
        rank.kill()
    process.kill()
    process.wait()
    process.stdout.close()


def test_both_ranks_end_and_the_run_is_stopped(run: Path, parent: subprocess.Popen[str]) -> None:
    ranks = ranks_of(run)
    assert len(ranks) == 2
    assert parent.pid not in [rank.pid for rank in ranks]
    assert LiveRun(run).snapshot(None).state == "starting"

    stop_local_run(run, timeout_s=120)

    assert parent.wait(timeout=120) == 0
    assert not is_locked(run)
    assert LiveRun(run).snapshot(None).state == "stopped"


def test_a_run_that_nobody_trains_cannot_be_stopped(run: Path) -> None:
    with pytest.raises(UsageError, match="not being trained"):
        stop_local_run(run, timeout_s=1)
