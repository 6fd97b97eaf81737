"""A whole Slurm on one machine, for trying things out and for tests: munged, slurmctld, some slurmd, fake GPUs.

    with slurm_sandbox(folder, nodes=2) as sandbox:
        subprocess.run(["sinfo"], env={**os.environ, **sandbox.environment})

It needs the packages of `scripts/setup.sh --slurm` and no rights beyond the user's own; as root it works too. Nothing
of it survives the `with`: neither daemons, nor jobs, nor ports; and the daemons end with this process, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from pokevla.errors import ClusterError, EnvironmentSetupError
from slurm.commands import TIMEOUT_S
from slurm.sandbox.configuration import Layout, gres_conf, slurm_conf

START_TIMEOUT_S = 120.0
"""Seconds within which all nodes must be idle. It takes about one; a machine that swaps takes long."""
_POLL_S = 0.1
_END_S = 10.0
_DAEMONS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
_ACCOUNTING_DAEMONS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server", "mariadb-install-db": "mariadb-server"}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass
class Sandbox:
    """A running sandbox."""

    layout: Layout
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where everything of it lies: configuration, logs, state."""
        return self.layout.folder

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to talk to it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _path()}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Make it the Slurm of this process and its children."""
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
        """Output of one Slurm command in the sandbox. ClusterError when it fails."""
        done = self._ask(*command)
        if done.returncode != 0:
            raise ClusterError(f"`{' '.join(command)}` in the sandbox failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self._variables, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )

    @property
    def _variables(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def kill_node(self, name: str) -> None:
        """Let a node die without warning: its slurmd and all it runs, by SIGKILL."""
        daemon = self.daemons.pop(f"slurmd.{name}")
        daemon.kill()
        daemon.wait()
        for process in self._processes_of(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def start_node(self, name: str) -> None:
        """Start a node's slurmd (again)."""
        (self.folder / f"spool.{name}").mkdir(exist_ok=True)
        conf = str(self.folder / "slurm.conf")
        self._start(f"slurmd.{name}", ["slurmd", "-D", "-N", name, "-f", conf])

    def node_state(self, name: str) -> str:
        """Slurm's word for a node's state, e.g. `idle` or `down*`."""
        return self.run("sinfo", "--noheader", "--nodes", name, "--partition", "train", "--format", "%t").strip()

    # -------------------------------------------------------------------------------------------- start and end

    def start(self) -> None:
        """Write the configuration and start everything; returns when all nodes are idle. Errors of `slurm_sandbox`."""
        folder = self.folder
        for name in ("state", "log", "munge"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "munge").chmod(0o755)  # munged refuses a socket in a folder that others cannot enter
        for index in range(self.layout.gpus_per_node):
            (folder / f"gpu{index}").symlink_to("/dev/null")
        key = folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        (folder / "slurm.conf").write_text(slurm_conf(self.layout))
        (folder / "gres.conf").write_text(gres_conf(self.layout))
        self._start("munged", ["munged", "--foreground", "--force", f"--key-file={key}",
                               f"--socket={folder}/munge/socket", f"--pid-file={folder}/munge/pid",
                               f"--log-file={folder}/log/munged.log", f"--seed-file={folder}/munge/seed"])  # fmt: skip
        self._await("munged to answer", lambda: (folder / "munge" / "socket").is_socket())
        if self.layout.accounting_port is not None:
            from slurm.sandbox.accounting import start_accounting

            start_accounting(self.layout, self._start, self._await)
        self._start("slurmctld", ["slurmctld", "-D", "-f", str(folder / "slurm.conf")])
        for name in self.layout.node_names:
            self.start_node(name)
        self._await("all nodes to be idle", self._all_idle)

    def _all_idle(self) -> bool:
        done = self._ask("sinfo", "--noheader", "--Node", "--partition", "train", "--format", "%N %t")
        # `idle*` has not answered yet
        return sum(line.endswith(" idle") for line in done.stdout.splitlines()) == self.layout.nodes

    def stop(self) -> None:
        """End jobs and daemons and wait until their processes are gone."""
        for name in sorted(self.daemons, key=_end_order):
            _end(self.daemons[name])
        self.daemons.clear()
        leftovers = self._processes_of(None)
        for process in leftovers:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(leftovers, timeout=_END_S)

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                command,
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent,
                start_new_session=True,  # Ctrl-C in the terminal is for us, not for them
            )

    def _await(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not holds():
            for name, daemon in self.daemons.items():
                if daemon.poll() is not None:
                    raise ClusterError(
                        f"The sandbox's {name} ended with exit code {daemon.returncode}: {self._last_words(name)}",
                        f"Its logs are in {self.folder / 'log'}.",
                    )
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"The sandbox has waited {START_TIMEOUT_S:.0f} s for {what}.", f"Look into {self.folder / 'log'}."
                )
            time.sleep(_POLL_S)

    def _last_words(self, name: str) -> str:
        texts = [self.folder / "log" / f"{name}.{ending}" for ending in ("log", "out")]
        lines = [line for path in texts if path.is_file() for line in path.read_text(errors="replace").splitlines()]
        errors = [line for line in lines if "error" in line.lower() or "fatal" in line.lower()]
        return (errors or lines or ["nothing was said"])[-1]

    def _processes_of(self, node: str | None) -> list[psutil.Process]:
        """What slurmd started: step daemons and tasks, of one node or of all."""
        conf = str(self.folder / "slurm.conf")
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                variables = process.environ()
                if process.pid == os.getpid() or variables.get("SLURM_CONF") != conf:
                    continue
                belongs = "SLURM_JOB_ID" in variables if node is None else variables.get("SLURMD_NODENAME") == node
                if belongs:
                    found[process.pid] = process
        for process in _step_daemons(self.folder, node):
            found[process.pid] = process
        return list(found.values())


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
    """Start a Slurm in `folder` (made, and left with its logs) and end it with the block.

    `accounting` adds slurmdbd and a MariaDB, so that `sacct` works; it takes some ten seconds more. The others are
    Slurm's SlurmdTimeout, KillWait, the GraceTime of partition `train`, and MinJobAge.

    Raises:
        EnvironmentSetupError: packages are missing.
        ClusterError: a daemon does not start, with its last words.
    """
    require_packages(accounting)
    ports = free_ports(nodes + 3)
    layout = Layout(
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
    sandbox = Sandbox(layout)
    try:
        sandbox.start()
        yield sandbox
    finally:
        sandbox.stop()


def missing_packages(accounting: bool = False) -> list[str]:
    """Debian packages whose programs are not on this machine."""
    wanted = _DAEMONS | (_ACCOUNTING_DAEMONS if accounting else {})
    return sorted({package for program, package in wanted.items() if shutil.which(program, path=_path()) is None})


def require_packages(accounting: bool = False) -> None:
    """Refuse when the sandbox cannot run here.

    Raises:
        EnvironmentSetupError: naming the packages and what installs them.
    """
    missing = missing_packages(accounting)
    if missing:
        raise EnvironmentSetupError(
            f"The Slurm sandbox needs {', '.join(missing)}, which are not installed.",
            f"Install them: scripts/setup.sh --slurm (or: apt-get install --no-install-recommends {' '.join(missing)})",
        )


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on; held together until all are chosen, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _path(environment: Mapping[str, str] = os.environ) -> str:
    """PATH with the folders of daemons, which users often do not have."""
    return f"{environment.get('PATH', os.defpath)}:{_SBIN}"


def _end_with_parent() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_order(name: str) -> tuple[int, str]:
    """Nodes before the controller, and last munged, by which all know each other."""
    order = ["slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged"]
    return order.index(name.split(".")[0]), name


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(_END_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _step_daemons(folder: Path, node: str | None) -> list[psutil.Process]:
    """slurmstepd processes, known by their socket `FOLDER/spool.NODE/NODE_JOB.STEP`."""
    prefix = f"{folder}/spool.{node}/" if node is not None else f"{folder}/spool."
    pids = {
        connection.pid
        for connection in psutil.net_connections(kind="unix")
        if isinstance(connection.laddr, str) and connection.laddr.startswith(prefix) and connection.pid
    }
    found = []
    for pid in pids - {os.getpid()}:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if process.name().startswith("slurmstepd"):
                found.append(process)
    return found
