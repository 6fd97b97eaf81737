"""Ranks that a person or torchrun starts: one job at a time, and no rank waits for ever for another."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pokevla.distributed.environment import choose_port
from pokevla.files.holders import read_holder

WAIT_S = 300.0


@pytest.fixture
def start_rank(tiny_run_env: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    def start(rank: int, world_size: int, port: int, *arguments: object) -> subprocess.Popen[str]:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
        environment = {**tiny_run_env, "MASTER_ADDR": "127.0.0.1", "POKEVLA_RENDEZVOUS_TIMEOUT_S": "8"}
        environment |= {name: str(value) for name, value in place.items()}
        command = [sys.executable, "-m", "pokevla.cli.main", *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)

    return start


def test_a_second_job_is_refused_and_a_rank_without_peers_gives_up(
    tmp_path: Path, write_recipe: Callable[..., Path], start_rank: Callable[..., subprocess.Popen[str]]
) -> None:
    run, port, other_port = tmp_path / "byhand", choose_port({}), choose_port({})
    alone = start_rank(0, 2, port, "train", write_recipe("byhand", tmp_path))  # its rank 1 never starts
    deadline = time.monotonic() + WAIT_S
    while read_holder(run / ".lock") is None:
        assert alone.poll() is None, alone.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    others = [start_rank(rank, 2, other_port, "resume", run) for rank in (0, 1)]
    refused = [other.communicate(timeout=WAIT_S)[1] for other in others]
    missed = alone.communicate(timeout=WAIT_S)[1]

    assert [other.returncode for other in others] == [2, 2]
    for text in refused:
        assert f"process {alone.pid} on" in text or "Rank 0 has not started" in text, text
    assert alone.returncode == 2
    assert "Rank 0 cannot join the others at 127.0.0.1" in missed
    assert '"failed"' in (run / "events.jsonl").read_text()
