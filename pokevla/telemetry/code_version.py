"""Version of the running code: the commit of its checkout, and the uncommitted changes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pokevla

TIMEOUT_S = 30
COPIED_FROM = "COPIED_FROM"
"""File in the code copy of a Slurm job that holds the commit it was copied from."""


def code_commit() -> str | None:
    """Commit of the running code; None if it is not a git checkout or git is missing.

    A code copy names its commit in a file. Only a `.git` directly beside the package counts: the package may be
    installed somewhere below another project's checkout.
    """
    root = Path(pokevla.__file__).resolve().parent.parent
    if (root / COPIED_FROM).is_file():
        return (root / COPIED_FROM).read_text(encoding="utf-8").strip() or None
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    return _git(root, "rev-parse", "HEAD").strip() or None


def code_state() -> tuple[str | None, str]:
    """(commit, diff against it) of the running code; (None, "") if there is no commit."""
    commit, root = code_commit(), Path(pokevla.__file__).resolve().parent.parent
    return commit, _git(root, "diff", "HEAD") if commit and (root / ".git").exists() else ""


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, timeout=TIMEOUT_S, check=False)
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
