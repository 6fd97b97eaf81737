"""The sandbox itself: it starts, says why it does not, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import slurm.sandbox.sandbox as module
from pokevla.cli.main import run as run_command
from pokevla.errors import ClusterError, EnvironmentSetupError
from slurm.sandbox.leftovers import job_processes
from slurm.sandbox.sandbox import Sandbox, slurm_sandbox


def test_nothing_is_left_of_a_sandbox_that_was_busy(tmp_path: Path, wait_until: Callable[..., None]) -> None:
    marker = tmp_path / "started"
    with slurm_sandbox(tmp_path / "s", nodes=1, gpus_per_node=2) as sandbox:
        job = f"echo $CUDA_VISIBLE_DEVICES > {marker}; trap '' TERM; sleep 600"
        sandbox.run("sbatch", "--gpus-per-node=2", "--output=/dev/null", f"--wrap={job}")
        wait_until("the job runs", marker.is_file)
        daemons = [daemon.pid for daemon in sandbox.daemons.values()]
        port = sandbox.config.controller_port
    assert marker.read_text() == "0,1\n"
    assert not any(psutil.pid_exists(pid) for pid in daemons)
    assert [process for process in psutil.process_iter() if str(tmp_path) in " ".join(_words(process))] == []
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # ended connections may linger; listeners may not
        free.bind(("127.0.0.1", port))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
    except psutil.NoSuchProcess:
        return []


def test_daemon_that_does_not_start_is_named_with_its_last_error_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = module.slurm_conf
    monkeypatch.setattr(module, "slurm_conf", lambda layout: written(layout) + "SelectType=select/nonsense\n")
    with pytest.raises(ClusterError, match=r"sandbox's slurmctld ended with exit code 1: .*"), slurm_sandbox(tmp_path):
        pass


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(module, "_SBIN", "/nowhere")
    words = r"needs munge, slurm-client, slurmctld, slurmd.*--slurm"
    with pytest.raises(EnvironmentSetupError, match=words), slurm_sandbox(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_command_line_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(module, "_SBIN", "/nowhere")
    assert run_command(["sandbox"]) == 2
    assert "apt-get install --no-install-recommends munge slurm-client slurmctld slurmd" in capsys.readouterr().err


def test_shell_says_what_to_try_and_its_exit_code_is_that_of_the_command(tmp_path: Path, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pokevla.cli.main", "sandbox", "--nodes=1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository), "SHELL": "/bin/sh"},
        input="sinfo --noheader --format %P:%D; test -f $POKEVLA_PROFILE && exit 5\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 5, done.stderr
    assert "docs/cluster.md" in done.stdout
    assert "gpu:1" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_sandbox_ends_with_daemons_and_jobs_however_it_is_ended(
    number: signal.Signals, tmp_path: Path, repository: Path, wait_until: Callable[..., None]
) -> None:
    marker, conf = tmp_path / "started", tmp_path / "conf"
    job = f"sbatch --output=/dev/null --wrap=\"touch {marker}; trap '' TERM; sleep 600\""
    words = ["sandbox", "--nodes=1", "--", "sh", "-c", f"echo $SLURM_CONF > {conf}; {job}; sleep 600"]
    shell = subprocess.Popen(
        [sys.executable, "-m", "pokevla.cli.main", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    wait_until("the job runs", lambda: marker.is_file() or shell.poll() is not None)
    folder = Path(conf.read_text().strip()).parent
    shell.send_signal(number)
    shell.wait()
    wait_until("its processes end", lambda: not users_of(folder))
    wait_until("its folder is removed", lambda: not folder.exists())


def users_of(folder: Path) -> list[psutil.Process]:
    """Daemons and tasks of the sandbox in `folder`."""
    return [process for process in psutil.process_iter() if str(folder) in " ".join(_words(process))] + job_processes(
        folder, None
    )


def test_node_that_dies_is_down_until_it_is_started(sandbox: Sandbox, wait_until: Callable[..., None]) -> None:
    sandbox.kill_node("n2")
    wait_until("n2 is down", lambda: sandbox.node_state("n2").startswith("down"))
    sandbox.start_node("n2")
    wait_until("n2 is back", lambda: sandbox.node_state("n2") == "idle")
