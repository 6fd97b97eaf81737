"""A shell, or one command, in a sandbox: `pokevla sandbox`."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from pokevla.errors import UsageError
from pokevla.jobs.profile import VARIABLE
from slurm.sandbox.sandbox import Sandbox, require_packages, slurm_sandbox

CPUS_PER_NODE = 96
"""As many as slurm/profiles/a100x8.yaml asks for. Slurm only counts them: jobs run on what this machine has."""
PROFILE = """\
# The sandbox of `pokevla sandbox`. All its nodes are this machine, so they see every folder.
partition: gpu
cpus_per_task: 1
array_width: 2
shared: [/]
"""


def run_in_sandbox(command: Sequence[str], nodes: int, accounting: bool, on_start: Callable[[Sandbox], None]) -> int:
    """Start a Slurm, run `command` in it, by default the user's shell, and end everything; returns its exit code.

    `on_start` is called once Slurm runs. Daemons and jobs end with the command, however that or this process ends.

    Raises:
        EnvironmentSetupError: Slurm or munge is not installed; has the command that installs them.
        ClusterError: a daemon does not start.
        UsageError: there is no such command.
    """
    require_packages(accounting)
    with (
        tempfile.TemporaryDirectory(prefix="pokevla-slurm-") as name,
        _ended_by_signals(),
        slurm_sandbox(Path(name), nodes=nodes, cpus_per_node=CPUS_PER_NODE, accounting=accounting) as sandbox,
        _reaper(sandbox.folder),
    ):
        profile = sandbox.folder / "profile.yaml"
        profile.write_text(PROFILE, encoding="utf-8")
        on_start(sandbox)
        words = list(command) or [os.environ.get("SHELL", "/bin/bash")]
        return _run(words, {**os.environ, **sandbox.environment, **_variables(sandbox, profile)})


def _variables(sandbox: Sandbox, profile: Path) -> dict[str, str]:
    own = str(Path(sys.executable).parent)  # where `pokevla` is, even if its environment is not active
    return {VARIABLE: str(profile), "PATH": os.pathsep.join([own, sandbox.environment["PATH"]])}


def _run(words: Sequence[str], environment: dict[str, str]) -> int:
    try:
        process = subprocess.Popen(words, env=environment)
    except OSError as error:
        raise UsageError(f"{shlex.join(words)} cannot be started: {error.strerror}.", "Name a program.") from error
    try:
        code = process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End with the daemons when the terminal is closed or the process is asked to end. Ctrl-C is for the shell."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def leave_to_the_shell(number: int, _frame: FrameType | None) -> None:
        pass  # a handler, because a child would inherit SIG_IGN

    handlers = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGINT: leave_to_the_shell}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _reaper(folder: Path) -> Iterator[None]:
    """A process that ends what is left of the sandbox if this process is killed: its standard input is then closed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "slurm.sandbox.reaper", str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        process.kill()
        process.communicate()
