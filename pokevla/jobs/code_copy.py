"""The code as it was when a job was submitted, kept with the run: edits while it waits in the queue change nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pokevla
from pokevla.errors import ClusterError
from pokevla.telemetry.code_version import COPIED_FROM, code_commit

CODE = "code"
PACKAGES = ("pokevla", "slurm", "monitoring", "checkpoints_tools")
"""What a job can import."""


def copy_code(run_dir: Path) -> Path:
    """Copy the packages this process runs from to RUN/code, in place of an earlier copy; returns that folder.

    Files are those git knows or would add; of an installed package all but bytecode.
    """
    root = Path(pokevla.__file__).resolve().parent.parent
    target, temporary = run_dir / CODE, run_dir / f".{CODE}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    for name in _files(root):
        copy = temporary / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, copy)
    (temporary / COPIED_FROM).write_text(f"{code_commit() or ''}\n", encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    temporary.rename(target)
    return target


def _files(root: Path) -> list[str]:
    if (root / ".git").exists() and shutil.which("git") is not None:
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
        done = subprocess.run([*command, *PACKAGES], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            return [name for name in done.stdout.split("\0") if name and (root / name).is_file()]
    return [
        str(path.relative_to(root))
        for package in PACKAGES
        for path in sorted((root / package).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]


def require_code_copy(run_dir: Path) -> None:
    """Make sure that this process runs the code that was submitted.

    Raises:
        ClusterError: it runs other code (a module or container that changes PYTHONPATH).
    """
    here, wanted = Path(pokevla.__file__).resolve().parent.parent, (run_dir / CODE).resolve()
    if here != wanted:
        raise ClusterError(
            f"This job runs the code of {here}, not {wanted}, which was submitted with it.",
            "Something in the profile's setup or python changes PYTHONPATH: take it out.",
        )
