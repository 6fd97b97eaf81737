"""A complete Slurm on one machine, for tests and experiments: munged, slurmctld, several slurmd, simulated GPUs.

    with slurm_sandbox(folder, nodes=2) as sandbox:
        subprocess.run(["sinfo"], env={**os.environ, **sandbox.environment})

It needs the packages of `scripts/setup.sh --slurm` and no special rights; it also works as root. No daemon, job or port
survives the `with` block, and the daemons end with this process, however it ends.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from pokevla.errors import ClusterError, EnvironmentSetupError
from pokevla.processes import end_with_parent
from slurm.commands import TIMEOUT_S
from slurm.sandbox.configuration import SandboxConfig, gres_conf, slurm_conf
from slurm.sandbox.leftovers import end_processes, job_processes

START_TIMEOUT_S = 120.0
"""Seconds within which all nodes must be idle. Usually takes about one; a machine that swaps takes long."""
_POLL_S = 0.1
_END_S = 10.0
_DAEMONS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
_ACCOUNTING_DAEMONS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server"}
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass
class Sandbox:
    """A running sandbox."""

    config: SandboxConfig
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Folder with configuration, logs and state."""
        return self.config.folder

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables with which a process uses this Slurm."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Set these variables for this process and its children within the block."""
        before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def run(self, *command: str) -> str:
        """Output of one Slurm command in the sandbox. ClusterError if it fails."""
        done = self._ask(*command)
        if done.returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` in the sandbox failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self._variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            encoding="utf-8",
            errors="replace",
        )

    @property
    def _variables(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def kill_node(self, name: str) -> None:
        """Kill a node without warning: SIGKILL to its slurmd and all its processes."""
        daemon = self.daemons.pop(f"slurmd.{name}")
        daemon.kill()
        daemon.wait()
        for process in job_processes(self.folder, name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def start_node(self, name: str) -> None:
        """Start a node's slurmd (again)."""
        (self.folder / f"spool.{name}").mkdir(exist_ok=True)
        conf = str(self.folder / "slurm.conf")
        self._start(f"slurmd.{name}", ["slurmd", "-D", "-N", name, "-f", conf])

    def node_state(self, name: str) -> str:
        """State of a node as Slurm reports it, e.g. `idle` or `down*`."""
        return self.run("sinfo", "--noheader", "--nodes", name, "--partition", "train", "--format", "%t").strip()

    # -------------------------------------------------------------------------------------------- start and end

    def start(self) -> None:
        """Write the configuration and start all daemons; returns when all nodes are idle. Errors as `slurm_sandbox`."""
        folder = self.folder
        for name in ("state", "log", "munge"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "munge").chmod(0o755)  # munged refuses a socket in a folder that others cannot enter
        for index in range(self.config.gpus_per_node):
            (folder / f"gpu{index}").symlink_to("/dev/null")
        key = folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        (folder / "slurm.conf").write_text(slurm_conf(self.config), encoding="utf-8")
        (folder / "gres.conf").write_text(gres_conf(self.config), encoding="utf-8")
        self._start("munged", ["munged", "--foreground", "--force", f"--key-file={key}",
                               f"--socket={folder}/munge/socket", f"--pid-file={folder}/munge/pid",
                               f"--log-file={folder}/log/munged.log", f"--seed-file={folder}/munge/seed"])  # fmt: skip
        self._await("munged to answer", lambda: (folder / "munge" / "socket").is_socket())
        if self.config.accounting_port is not None:
            from slurm.sandbox.accounting import start_accounting

            start_accounting(self.config, self._start, self._await)
        self._start("slurmctld", ["slurmctld", "-D", "-f", str(folder / "slurm.conf")])
        for name in self.config.node_names:
            self.start_node(name)
        self._await("all nodes to be idle", self._all_idle)

    def _all_idle(self) -> bool:
        done = self._ask("sinfo", "--noheader", "--Node", "--partition", "train", "--format", "%N %t")
        # `idle*`: the node has not answered yet
        return sum(line.endswith(" idle") for line in done.stdout.splitlines()) == self.config.nodes

    def stop(self) -> None:
        """End jobs and daemons, and wait until their processes have ended."""
        for name in sorted(self.daemons, key=_end_order):
            _end(self.daemons[name])
        self.daemons.clear()
        end_processes(self.folder)

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command,
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=partial(end_with_parent, signal.SIGTERM),
                start_new_session=True,  # Ctrl-C in the terminal must not reach the daemons
            )

    def _await(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not holds():
            for name, daemon in self.daemons.items():
                if daemon.poll() is not None:
                    raise ClusterError(
                        f"The sandbox's {name} ended with exit code {daemon.returncode}: {self._last_error_line(name)}",
                        f"Its logs are in {self.folder / 'log'}.",
                    )
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"The sandbox has waited {START_TIMEOUT_S:.0f} s for {what}.", f"See {self.folder / 'log'}."
                )
            time.sleep(_POLL_S)

    def _last_error_line(self, name: str) -> str:
        texts = [self.folder / "log" / f"{name}.{ending}" for ending in ("log", "out")]
        lines = [
            line
            for path in texts
            if path.is_file()
            for line in path.read_text(errors="replace", encoding="utf-8").splitlines()
        ]
        errors = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
        return (errors or lines or ["no output"])[-1]


@contextlib.contextmanager
def slurm_sandbox(
    folder: Path,
    *,
    nodes: int = 2,
    gpus_per_node: int = 8,
    cpus_per_node: int = 8,
    accounting: bool = False,
    node_timeout_s: int = 15,
    kill_wait_s: int = 30,
    grace_s: int = 30,
    remember_s: int = 86400,
) -> Iterator[Sandbox]:
    """Start a Slurm in `folder` and end it with the block. The folder is created, and stays with its logs.

    `accounting` adds slurmdbd and a MariaDB, so that `sacct` works; this takes about ten seconds more. The times are
    Slurm's SlurmdTimeout, KillWait, GraceTime of partition `train`, and MinJobAge.

    Raises:
        EnvironmentSetupError: packages are missing.
        ClusterError: a daemon does not start; has the last error in its log.
    """
    require_packages(accounting)
    ports = free_ports(nodes + 3)
    config = SandboxConfig(
        folder=folder.absolute(),
        host=socket.gethostname().split(".")[0],
        user=getpass.getuser(),
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_node=cpus_per_node,
        controller_port=ports[0],
        node_ports=tuple(ports[3:]),
        accounting_port=ports[1] if accounting else None,
        database_port=ports[2] if accounting else None,
        node_timeout_s=node_timeout_s,
        kill_wait_s=kill_wait_s,
        grace_s=grace_s,
        remember_s=remember_s,
    )
    sandbox = Sandbox(config)
    try:
        sandbox.start()
        yield sandbox
    finally:
        sandbox.stop()


def missing_packages(accounting: bool = False) -> list[str]:
    """Debian packages that the sandbox needs and this machine lacks."""
    needed = _DAEMONS | (_ACCOUNTING_DAEMONS if accounting else {})
    return sorted({package for program, package in needed.items() if shutil.which(program, path=_path()) is None})


def require_packages(accounting: bool = False) -> None:
    """Refuse if the sandbox cannot run on this machine.

    Raises:
        EnvironmentSetupError: names the missing packages and the command that installs them.
    """
    missing = missing_packages(accounting)
    if missing:
        raise EnvironmentSetupError(
            f"The Slurm sandbox needs {', '.join(missing)}, which are not installed.",
            f"Install them: scripts/setup.sh --slurm (or: apt-get install --no-install-recommends {' '.join(missing)})",
        )


def free_ports(count: int) -> list[int]:
    """Free ports of this machine. All are held until the last one is chosen, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _path(environment: Mapping[str, str] = os.environ) -> str:
    """PATH with the folders of system daemons, which users' PATHs often lack."""
    return f"{environment.get('PATH', os.defpath)}:{_SBIN}"


def _end_order(name: str) -> tuple[int, str]:
    """Nodes before the controller, and munged last, because all daemons authenticate through it."""
    order = ["slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"]
    return order.index(name.split(".")[0]), name


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(_END_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
