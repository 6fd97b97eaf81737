"""Code copy: the code at submission, kept with the run, so that later edits do not affect a queued job."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pokevla
from pokevla.errors import ClusterError
from pokevla.files.ownership import refuse_foreign
from pokevla.files.writing import atomic_folder
from pokevla.telemetry.code_version import COPIED_FROM, code_commit

CODE = "code"
PACKAGES = ("pokevla", "slurm", "monitoring", "checkpoints_tools")
"""Packages that a job can import."""


def copy_code(run_dir: Path) -> Path:
    """Copy the packages of this process to RUN/code, replacing an earlier copy; returns that folder.

    From a checkout it copies the files that git tracks or would add, from an installed package all but bytecode.

    Raises:
        DiskFullError: no room. ClusterError: RUN/code is something else, or cannot be written.
    """
    root = Path(pokevla.__file__).resolve().parent.parent
    target = run_dir / CODE
    with atomic_folder(target, replaces=_refuse_replacing, durable=False, kind=ClusterError) as new:
        for name in _files(root):
            copy = new / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy)
        (new / COPIED_FROM).write_text(f"{code_commit() or ''}\n", encoding="utf-8")
    return target


def _refuse_replacing(target: Path) -> None:
    if not (target / COPIED_FROM).is_file():
        raise ClusterError(f"{target} exists and is no code copy (it has no {COPIED_FROM}).", "Move it elsewhere.")
    refuse_foreign(target, "code copy", [COPIED_FROM, *(f"{name}/**" for name in PACKAGES)], kind=ClusterError)


def _files(root: Path) -> list[str]:
    if (root / ".git").exists() and shutil.which("git") is not None:
        command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
        done = subprocess.run(
            [*command, *PACKAGES],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode == 0:
            return [name for name in done.stdout.split("\0") if name and (root / name).is_file()]
    return [
        str(path.relative_to(root))
        for package in PACKAGES
        for path in sorted((root / package).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    ]


def require_code_copy(run_dir: Path) -> None:
    """Check that this process runs the code copy of its run.

    Raises:
        ClusterError: it runs other code, because a module or container changes PYTHONPATH.
    """
    imported, submitted = Path(pokevla.__file__).resolve().parent.parent, (run_dir / CODE).resolve()
    if imported != submitted:
        raise ClusterError(
            f"This job runs the code of {imported}, not {submitted}, which was submitted with it.",
            "Something in the profile's setup or python changes PYTHONPATH: remove it.",
        )
