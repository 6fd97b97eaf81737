"""Which source a program runs from: the commit of its checkout, and what was changed since."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pokevla

TIMEOUT_S = 30


def source_commit() -> str | None:
    """The commit of the source tree this package runs from; None if that is no git checkout or git is not there.

    A package installed somewhere below another project's checkout is not of that project: only its own `.git` counts.
    """
    root = Path(pokevla.__file__).resolve().parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    return _git(root, "rev-parse", "HEAD").strip() or None


def source_state() -> tuple[str | None, str]:
    """(commit, diff against it) of the source tree; (None, "") where there is no commit."""
    commit = source_commit()
    return commit, "" if commit is None else _git(Path(pokevla.__file__).resolve().parent.parent, "diff", "HEAD")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=TIMEOUT_S, check=False)
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
