"""Shared by all tests: one thread, CPU, software rendering, and no network. Set before any test module is imported."""

from __future__ import annotations

import gc
import ipaddress
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

QUIET_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # two ranks and some workers share two cores
    "DS_ACCELERATOR": "cpu",
    "MUJOCO_GL": "osmesa",
    "POKEVLA_MODEL_CACHE": "off",  # nothing outside tmp_path
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# Overwritten, not only defaulted: a test must not depend on the shell it was started from.
os.environ.update(QUIET_ENVIRONMENT)
# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")
for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
    os.environ.pop(name, None)


SHARED_FIXTURES = ("tests/end_to_end",)
"""Folders whose tests share a fixture that takes minutes."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have pytest-xdist run the tests of a file in one process, and those of a folder with a costly fixture too.

    Its own `--dist=loadgroup` would do, but version 3.8 has no effect with pytest 9.2.
    """
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((folder for folder in SHARED_FIXTURES if file.startswith(f"{folder}/")), file)

    return Together(config, log)


def pytest_collection_finish() -> None:
    """Exempt all that was imported from garbage collection, which would visit a million objects again and again."""
    gc.freeze()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def tiny_run_env(repository: Path) -> dict[str, str]:
    """Environment for a subprocess of a test: that of this process, with the checkout importable."""
    python_path = os.pathsep.join(part for part in (str(repository), os.environ.get("PYTHONPATH")) if part)
    return {**os.environ, "PYTHONPATH": python_path}


@pytest.fixture
def as_user(tiny_run_env: dict[str, str]) -> Callable[[str], str]:
    """Run Python code without the privileges of root, to which all files are readable; returns what it prints."""
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []

    def run(code: str) -> str:
        child = subprocess.run(
            [*drop, sys.executable, "-c", code], env=tiny_run_env, capture_output=True, text=True, timeout=60
        )
        assert child.returncode == 0, child.stderr
        return child.stdout

    return run


@pytest.fixture(scope="session")
def room_for() -> Callable[[int], AbstractContextManager[None]]:
    """`with room_for(size_bytes)`: the kernel lets no file of this process or its children grow beyond this size."""

    @contextmanager
    def limited(size_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB of its own. Only root may mount one; elsewhere the test is left out."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here ({mounted.stderr.strip()})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _is_local(family: int, address: Any) -> bool:
    if family == socket.AF_UNIX or not isinstance(address, tuple):
        return True
    host = str(address[0])
    if host in ("", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Refuse every connection of this process that leaves the machine (gloo and servers on loopback stay)."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if not _is_local(self.family, address):
            raise ConnectionRefusedError(f"A test tried to reach {address}. Tests must not use the network.")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        yield


@dataclass(frozen=True)
class SmallDisk:
    """A file system of a few megabytes."""

    folder: Path

    def fill(self) -> None:
        """Leave no free block."""
        with (self.folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        """Undo `fill`."""
        (self.folder / "filler").unlink()


@contextmanager
def mounted_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """A real tmpfs of `size` at `folder`. Skips where mounting is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"mounting a tmpfs is not permitted: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], timeout=60, check=True)


@pytest.fixture
def disk_to_fill(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 4 MiB."""
    with mounted_disk(tmp_path / "disk", "4m") as disk:
        yield disk
