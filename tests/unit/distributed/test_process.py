"""Ranks start together, and none outlives another's death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pokevla.distributed.process import last_line, rank_log, spawn_ranks
from pokevla.errors import Requeued, TrainingError


def run(code: str, log_dir: Path, world_size: int = 2) -> None:
    spawn_ranks(("-c", textwrap.dedent(code)), world_size=world_size, threads=1, log_dir=log_dir)


def test_every_rank_gets_its_place_and_a_log(tmp_path: Path) -> None:
    run("import os; print(os.environ['RANK'], os.environ['WORLD_SIZE'], os.environ['OMP_WAIT_POLICY'])", tmp_path)
    assert last_line(rank_log(tmp_path, 0)) == "0 2 PASSIVE"
    assert last_line(rank_log(tmp_path, 1)) == "1 2 PASSIVE"


def test_a_dead_rank_ends_the_others_and_says_why(tmp_path: Path) -> None:
    code = """
        import os, sys, signal
        if os.environ["RANK"] == "1":
            print("the disk has melted", file=sys.stderr)
            sys.exit(3)
        signal.pause()
    """
    with pytest.raises(TrainingError, match=r"Rank 1 ended with exit code 3.*the disk has melted") as caught:
        run(code, tmp_path)
    assert caught.value.exit_code == 3


def test_a_killed_rank_is_named_with_its_signal(tmp_path: Path) -> None:
    code = """
        import os, signal
        if os.environ["RANK"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    """
    with pytest.raises(TrainingError, match=r"Rank 0 was killed by SIGKILL") as caught:
        run(code, tmp_path)
    assert caught.value.exit_code == 1


def test_the_rank_with_a_named_error_is_blamed_rather_than_the_one_that_followed(tmp_path: Path) -> None:
    code = """
        import os, sys
        sys.exit(1 if os.environ["RANK"] == "0" else 3)
    """
    with pytest.raises(TrainingError) as caught:
        run(code, tmp_path)
    assert caught.value.exit_code in (1, 3)  # whichever was seen; both seen at once: the named one


def test_ranks_die_with_a_killed_parent(tmp_path: Path, tiny_run_env: dict[str, str]) -> None:
    rank = "from pokevla.distributed.process import die_with_parent; die_with_parent(); import os, signal; "
    rank += "print(os.getpid(), flush=True); signal.pause()"
    parent = (
        "from pathlib import Path; from pokevla.distributed.process import spawn_ranks; "
        f"spawn_ranks(('-c', {rank!r}), world_size=1, threads=1, log_dir=Path({str(tmp_path)!r}), "
        "on_poll=lambda: print('alive', flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], env=tiny_run_env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not rank_log(tmp_path, 0).is_file() or not rank_log(tmp_path, 0).read_text().strip():
        process.stdout.readline()  # one line per poll
    child = int(rank_log(tmp_path, 0).read_text())
    descriptor = os.pidfd_open(child)
    process.kill()
    process.wait()
    try:
        signal.pidfd_send_signal(descriptor, 0)
        import select

        assert select.select([descriptor], [], [], 10)[0], "the rank outlived its parent"
    except ProcessLookupError:
        pass  # gone already
    finally:
        os.close(descriptor)


def send_when_ready(log_dir: Path, number: int, world_size: int = 2) -> Callable[[], None]:
    """A poll function that signals this process, once, when all ranks have written something."""
    sent: list[int] = []

    def poll() -> None:
        if not sent and all(last_line(rank_log(log_dir, rank)) == "ready" for rank in range(world_size)):
            sent.append(number)
            os.kill(os.getpid(), number)

    return poll


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_reaches_all_ranks_and_they_stop_with_their_work_saved(tmp_path: Path, number: int) -> None:
    code = """
        import signal, sys
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        print("ready", flush=True)
        got = signal.sigwait(held)  # as if the handlers came late: nothing is lost, nothing is deadly
        print("got", got.name, flush=True)
        sys.exit(75)
    """
    messages: list[str] = []
    before = signal.getsignal(number)
    with pytest.raises(Requeued):
        spawn_ranks(
            ("-c", textwrap.dedent(code)),
            world_size=2,
            threads=1,
            log_dir=tmp_path,
            on_poll=send_when_ready(tmp_path, number),
            on_signal=messages.append,
        )
    name = signal.Signals(number).name
    assert [last_line(rank_log(tmp_path, rank)) for rank in range(2)] == [f"got {name}"] * 2
    assert messages[0].startswith(name)
    assert signal.getsignal(number) == before


def test_ranks_that_do_not_stop_within_the_grace_are_killed(tmp_path: Path) -> None:
    code = "import time; print('ready', flush=True); time.sleep(600)"
    with pytest.raises(TrainingError, match=r"have not saved within 0\.1 s"):
        spawn_ranks(
            ("-c", code),
            world_size=2,
            threads=1,
            log_dir=tmp_path,
            on_poll=send_when_ready(tmp_path, signal.SIGTERM),
            grace_s=0.1,
        )


def test_a_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    code = "import time; print('ready', flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        spawn_ranks(
            ("-c", code),
            world_size=1,
            threads=1,
            log_dir=tmp_path,
            on_poll=send_when_ready(tmp_path, signal.SIGINT, 1),
            on_signal=lambda _text: os.kill(os.getpid(), signal.SIGINT),
        )


def test_a_stopped_rank_is_killed_with_the_others(tmp_path: Path) -> None:
    code = """
        import os, signal, sys, time
        if os.environ["RANK"] == "0":
            print(os.getpid(), flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        first = %r
        while not (os.path.exists(first) and open(first).read().strip()):
            time.sleep(0.01)
        sys.exit(4)
    """
    with pytest.raises(TrainingError, match="Rank 1 ended with exit code 4") as caught:
        run(code % str(rank_log(tmp_path, 0)), tmp_path)
    assert caught.value.exit_code == 4
    with pytest.raises(ProcessLookupError):
        os.kill(int(last_line(rank_log(tmp_path, 0))), 0)
