"""A lock keeps others off, tells them so in the caller's words, and never makes anybody wait for ever."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pokevla.errors import ClusterError, DataError, UsageError
from pokevla.files.holders import read_holder, this_process
from pokevla.files.locks import advisory_lock, is_locked

BUSY = {"busy": "It is taken.", "remedy": "Wait."}


def test_one_holds_it_and_the_other_is_told_what_the_caller_says(tmp_path: Path) -> None:
    def take() -> None:
        with advisory_lock(tmp_path / "lock", kind=ClusterError, **BUSY):
            pass

    with (
        advisory_lock(tmp_path / "lock", **BUSY),
        pytest.raises(ClusterError, match=r"It is taken\. It is process \d+ on \S+ .*, since 20\S+\. Wait\."),
    ):
        take()
    take()


def test_those_that_share_it_keep_off_one_that_wants_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with advisory_lock(path, shared=True, **BUSY), advisory_lock(path, shared=True, **BUSY):
        assert not is_locked(path)
        with pytest.raises(UsageError), advisory_lock(path, **BUSY):
            pass
    with advisory_lock(path, **BUSY), pytest.raises(UsageError), advisory_lock(path, shared=True, **BUSY):
        pass


def test_waiting_ends_when_it_is_free_and_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = os.open(path, os.O_CREAT | os.O_RDWR)
    with advisory_lock(path, **BUSY):
        started = time.monotonic()
        with pytest.raises(UsageError), advisory_lock(path, wait_s=0.2, **BUSY):
            pass
        assert 0.2 <= time.monotonic() - started < 5
    os.close(holder)
    with advisory_lock(path, **BUSY) as descriptor:
        threading.Timer(0.1, os.close, [os.dup(descriptor)]).start()  # holds it a little longer than this block
    with advisory_lock(path, wait_s=30, **BUSY):
        assert is_locked(path)


def test_a_process_that_inherits_the_descriptor_holds_the_lock_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with advisory_lock(path, **BUSY):
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
    assert is_locked(path)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not is_locked(path)


def test_a_lock_says_who_holds_it_until_it_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with advisory_lock(path, holder=this_process(job_id="812"), **BUSY):
        held = read_holder(path)
    assert held is not None
    assert (held.pid, held.job_id) == (os.getpid(), "812")
    assert "job 812, since 20" in held.describe()
    assert read_holder(path) is None


@pytest.mark.parametrize("content", [b"", b"job 7", b"[" * 9000, b'{"host": 1}', b"\xff"])
def test_a_lock_file_that_says_nothing_is_no_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    assert read_holder(tmp_path / "lock") is None
    with advisory_lock(tmp_path / "lock", **BUSY):
        assert read_holder(tmp_path / "lock") is not None


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_lock_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    assert not is_locked(tmp_path / "lock")
    assert read_holder(tmp_path / "lock") is None
    with advisory_lock(tmp_path / "lock", **BUSY):
        assert is_locked(tmp_path / "lock")


def test_a_lock_that_was_never_taken_is_free(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "lock")
    with pytest.raises(DataError, match="Cannot write"), advisory_lock(tmp_path / "gone" / "lock", **BUSY):
        pass
