"""Runs on the toy datasets, made once per session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pokevla.recipe.load import load_recipe
from tests.toys import PRETRAIN_RECIPE, RECIPE, write_toy_dataset, write_toy_questions


@pytest.fixture(scope="session")
def toy_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy robot dataset."""
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="session")
def write_recipe(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write the toy post-training recipe under a name. The first call builds its cache."""
    from pokevla.features.cache_build import build_cache

    root = tmp_path_factory.mktemp("recipes")
    cache = tmp_path_factory.mktemp("cache")

    def write(name: str, output: Path) -> Path:
        path = root / f"{name}.yaml"
        path.write_text(RECIPE.format(name=name, output=output, dataset=toy_dataset, cache=cache))
        return path

    probe = load_recipe(write("probe", root)).recipe
    build_cache(toy_dataset, probe.cache, batch=8)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return write


@pytest.fixture(scope="session")
def whole_run(repository: Path, write_recipe: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of an uninterrupted run of the toy post-training recipe."""
    runs = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [sys.executable, "-m", "pokevla.cli.main", "train", str(write_recipe("whole", runs))],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    labels = [line.split()[0] for line in lines[:7]]
    assert labels == ["run", "device", "ranks", "model", "data", "steps", "watch"], done.stderr
    assert "step 1/12  loss" in done.stderr
    return runs / "whole"


@pytest.fixture
def pokevla(tiny_run_env: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line as a user would."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pokevla.cli.main", *map(str, arguments)],
            env={**tiny_run_env, "POKEVLA_TEST": os.environ.get("PYTEST_CURRENT_TEST", "")},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def pretrain_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write the toy pre-training recipe under a name."""
    root = tmp_path_factory.mktemp("pretraining")
    dataset = write_toy_questions(root / "toy")

    def write(name: str, output: Path) -> Path:
        path = root / f"{name}.yaml"
        path.write_text(PRETRAIN_RECIPE.format(name=name, output=output, dataset=dataset))
        return path

    return write
