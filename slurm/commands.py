"""Slurm's own commands: run with a time limit, their failures as named errors, their output as dictionaries."""

from __future__ import annotations

import re
import shutil
import subprocess

from pokevla.errors import ClusterError

TIMEOUT_S = 60.0
"""A busy controller answers late; one that has not answered by then is down for us."""
_FIELD = re.compile(r"([A-Za-z][\w/:]*)=(.*?)(?= [A-Za-z][\w/:]*=|$)")


def has_slurm() -> bool:
    """Whether Slurm's commands are on this machine."""
    return shutil.which("sbatch") is not None


def ask_slurm(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command and return what it said, whatever its exit code. `text` is its standard input.

    Raises:
        ClusterError: there is no such command here, or it does not answer.
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
        )
    except FileNotFoundError as error:
        raise ClusterError(
            f"There is no {command[0]} on this machine.",
            "Run this on a login node of the cluster; `pokevla doctor slurm` says what is there.",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"`{' '.join(command)}` has not answered within {TIMEOUT_S:.0f} s.",
            "The controller is down or busy: try again later, or ask with: scontrol ping",
        ) from error


def run_slurm(*command: str, text: str | None = None) -> str:
    """Run one command and return its standard output.

    Raises:
        ClusterError: it is not there, does not answer, or refuses; with Slurm's own last words.
    """
    done = ask_slurm(*command, text=text)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` was refused: {last_words(done)}")
    return done.stdout


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """The last line a command wrote about its failure, without Slurm's prefix."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return re.sub(r"^\w+: (error: )?", "", lines[-1]) if lines else f"exit code {done.returncode}, nothing said"


def parse_fields(line: str) -> dict[str, str]:
    """Fields of one line of `scontrol --oneliner show ...`: `JobId=3 Reason=None ...`."""
    return {name: value.strip() for name, value in _FIELD.findall(line.strip())}
