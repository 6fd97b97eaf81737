"""Runs Slurm's commands: with a timeout, failures as named errors, output as dictionaries."""

from __future__ import annotations

import re
import shutil
import subprocess

from pokevla.errors import ClusterError

TIMEOUT_S = 60.0
"""A busy controller answers late; after this time it counts as down."""
_FIELD = re.compile(r"([A-Za-z][\w/:]*)=(.*?)(?= [A-Za-z][\w/:]*=|$)")


def has_slurm() -> bool:
    """Whether Slurm's commands are installed on this machine."""
    return shutil.which("sbatch") is not None


def ask_slurm(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command and return its output, whatever its exit code. `text` is its standard input.

    Raises:
        ClusterError: the command is not installed or does not answer.
    """
    try:
        return subprocess.run(
            command,
            input=text if text is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            encoding="utf-8",
        )
    except FileNotFoundError as error:
        raise ClusterError(
            f"There is no {command[0]} on this machine.",
            "Run this on a login node of the cluster; `pokevla doctor slurm` checks what is available.",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"`{' '.join(command)}` has not answered within {TIMEOUT_S:.0f} s.",
            "The controller is down or busy: try again later, or ask with: scontrol ping",
        ) from error


def run_slurm(*command: str, text: str | None = None) -> str:
    """Run one command and return its standard output.

    Raises:
        ClusterError: it is not installed, does not answer, or fails; has the last line that Slurm printed.
    """
    done = ask_slurm(*command, text=text)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` was refused: {last_error_line(done)}")
    return done.stdout


def last_error_line(done: subprocess.CompletedProcess[str]) -> str:
    """Last line that a command printed about its failure, without Slurm's prefix."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return re.sub(r"^\w+: (error: )?", "", lines[-1]) if lines else f"exit code {done.returncode}, no output"


def parse_fields(line: str) -> dict[str, str]:
    """Fields of one line of `scontrol --oneliner show ...`: `JobId=3 Reason=None ...`."""
    return {name: value.strip() for name, value in _FIELD.findall(line.strip())}
