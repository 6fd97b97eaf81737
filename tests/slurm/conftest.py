"""A Slurm of two nodes on this machine, started once for all tests here, and tiny data to train on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tests.toys
from pokevla.jobs.profile import Profile
from pokevla.recipe.load import LoadedRecipe, load_recipe
from slurm.sandbox.sandbox import Sandbox, missing_packages, slurm_sandbox

Pokevla = Callable[..., "subprocess.CompletedProcess[str]"]
REQUIRED = "POKEVLA_REQUIRE_SLURM"
DEADLINE_S = 1500.0
"""Of each thing that is waited for. It is only there so that a test that fails ends at all."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session", autouse=True)
def slurm_installed() -> None:
    """On a machine without Slurm nothing here can run."""
    missing = missing_packages(accounting=True)
    if missing and REQUIRED not in os.environ:
        pytest.skip(f"not installed: {', '.join(missing)} (make slurm); with {REQUIRED} set this is an error")


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Two nodes; a node that is silent for ten seconds is down. The Slurm of this process and of what it starts.

    Jobs have time to save however slow the machine is: what ends is not waited for any longer.
    """
    folder = tmp_path_factory.mktemp("slurm")
    with (
        slurm_sandbox(folder, nodes=2, node_timeout_s=10, kill_wait_s=600, grace_s=600) as running,
        running.active(),
    ):
        yield running


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """Writers of the toy datasets and recipes, which the training tests use too."""
    return tests.toys


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What would be the shared file system."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def profile(shared: Path) -> Path:
    """The sandbox's profile."""
    path = shared / "sandbox.yaml"
    path.write_text(f"cpus_per_task: 1\ngpus_per_node: 0\narray_width: 2\nshared: [{shared}]\n")
    return path


@pytest.fixture(scope="session")
def pokevla(repository: Path, shared: Path, profile: Path, sandbox: Sandbox) -> Pokevla:
    """Run `pokevla ARGUMENTS` as a user on the login node does."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pokevla.cli.main", *map(str, arguments)],
            cwd=shared,
            env={**os.environ, "PYTHONPATH": str(repository), "POKEVLA_PROFILE": str(profile)},
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE_S,
        )

    return run


@pytest.fixture
def walk(toys: ModuleType, shared: Path) -> Callable[..., LoadedRecipe]:
    """A small pre-training that nobody has to run."""
    dataset = shared / "questions"
    if not dataset.exists():
        toys.write_toy_questions(dataset)
    path = shared / "walk.yaml"
    path.write_text(toys.PRETRAIN_RECIPE.format(name="walk", output=shared / "runs", dataset=dataset))
    return lambda *overrides: load_recipe(path, overrides)


@pytest.fixture
def seen(shared: Path) -> Profile:
    """A profile that says that the tests' folder is seen by all nodes."""
    return Profile(cpus_per_task=1, shared=(shared,))


def await_that(what: str, holds: Callable[[], object], deadline_s: float = DEADLINE_S, poll_s: float = 0.3) -> None:
    """Wait until something holds, whatever the machine's speed. Each question to Slurm takes the cores from the job."""
    deadline = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < deadline, f"not in {deadline_s:.0f} s: {what}"
        time.sleep(poll_s)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """`await_that`."""
    return await_that
