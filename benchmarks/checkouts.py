"""Worktrees of several commits of this repository, and commands that run on their code."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
PROBE = Path(__file__).with_name("model_probe.py")
TIME_LIMIT_S = 3600.0
"""Time limit of one command."""


class CommandFailed(Exception):
    """A command failed. `remedy` is True if it refused its input and named a command that helps."""

    def __init__(self, exit_code: int, output: str, log: Path) -> None:
        lines = [line for line in output.splitlines() if line.strip()] or ["(no output)"]
        message = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
        super().__init__(f"{message.removeprefix('error: ')} (exit code {exit_code}, {log})")
        self.remedy = exit_code in (2, 3) and "pokevla " in message


@dataclass(frozen=True)
class Checkout:
    """A commit in a worktree, with its runs, results and logs beside it.

    `root` is shared by the compared commits. Recipe hashes include paths, so every commit writes to `root`/job, a link
    to the runs of the active commit.
    """

    root: Path
    sha: str

    @property
    def folder(self) -> Path:
        """Directory of this commit's worktree, runs, results and logs."""
        return self.root / self.sha[:12]

    @property
    def tree(self) -> Path:
        """The worktree."""
        return self.folder / "tree"

    @property
    def data(self) -> Path:
        """Datasets, created by BASE."""
        return self.root / "data"

    @property
    def job(self) -> Path:
        """The runs of the active commit, under the same path for all commits."""
        return self.root / "job"

    def take_turn(self) -> None:
        """Make this commit active: point `job` at its runs."""
        runs = self.folder / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        self.job.unlink(missing_ok=True)
        self.job.symlink_to(runs)

    def check_out(self) -> None:
        """Create the worktree unless it exists."""
        if not self.tree.exists():
            git("worktree", "add", "--quiet", "--detach", str(self.tree), self.sha)

    def remove_tree(self) -> None:
        """Remove the worktree if it exists."""
        if self.tree.exists():
            git("worktree", "remove", "--force", str(self.tree))

    def python(self, *arguments: object, environment: Mapping[str, str] | None = None) -> None:
        """Run the current Python on the commit's code, in the worktree. Raises CommandFailed on failure."""
        self.check_out()
        log = self.folder / "commands.log"
        words = [sys.executable, *map(str, arguments)]
        variables = {"PYTHONPATH": str(self.tree), "POKEVLA_DEMO": str(self.job), "OMP_NUM_THREADS": "1"}
        with log.open("a", encoding="utf-8") as file:
            print("$", *words, file=file, flush=True)
            begin = file.tell()
            try:
                done = subprocess.run(
                    words,
                    cwd=self.tree,
                    env={**os.environ, **variables, **(environment or {})},
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=TIME_LIMIT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise CommandFailed(124, str(error), log) from error
        if done.returncode:
            output = log.read_bytes()[begin:].decode(errors="replace")
            raise CommandFailed(done.returncode, output, log)

    def pokevla(self, *words: object) -> None:
        """Run a `pokevla` command of the commit. Raises CommandFailed on failure."""
        self.python("-m", "pokevla.cli.main", *words)

    def probe(self, *words: object, one_rank: bool = False) -> dict[str, Any]:
        """Run a `pokevla` command under `model_probe.py` and return the recorded inputs and outputs of its models.
        `one_rank` makes the process rank 0 of 1."""
        out = self.folder / "probe.json"
        rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        self.python(PROBE, out, *words, environment={**rank, "MASTER_PORT": free_port()} if one_rank else None)
        return json.loads(out.read_text(encoding="utf-8"))

    def fresh(self, name: str) -> Path:
        """Path `job`/`name`, after removing what was there."""
        path = self.job / name
        shutil.rmtree(path, ignore_errors=True)
        return path


def git(*words: str) -> str:
    """Run git in the repository and return its output. Raises RuntimeError with git's message on failure."""
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), *words],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return done.stdout.strip()


def full_hash(name: str) -> str:
    """Full hash of the commit that a branch, tag or short hash names. Raises RuntimeError if there is none."""
    try:
        return git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    except RuntimeError as error:
        raise RuntimeError(f"{name} is not a commit of {REPOSITORY}.") from error


def free_port() -> str:
    """A TCP port that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
