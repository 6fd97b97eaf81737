"""Which source a program runs from: the commit of its checkout, and what was changed since."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pokevla

TIMEOUT_S = 30
COPIED_FROM = "COPIED_FROM"
"""File in a copy of the code, which a Slurm job runs from: the commit that it is a copy of."""


def source_commit() -> str | None:
    """The commit of the source tree this package runs from; None if that is no git checkout or git is not there.

    A copy of the code says in a file what it is a copy of. A package installed somewhere below another project's
    checkout is not of that project: only its own `.git` counts.
    """
    root = Path(pokevla.__file__).resolve().parent.parent
    if (root / COPIED_FROM).is_file():
        return (root / COPIED_FROM).read_text(encoding="utf-8").strip() or None
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    return _git(root, "rev-parse", "HEAD").strip() or None


def source_state() -> tuple[str | None, str]:
    """(commit, diff against it) of the source tree; (None, "") where there is no commit."""
    commit, root = source_commit(), Path(pokevla.__file__).resolve().parent.parent
    return commit, _git(root, "diff", "HEAD") if commit and (root / ".git").exists() else ""


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=TIMEOUT_S, check=False)
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
