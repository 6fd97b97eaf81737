"""The whole way of the data once per test session, at size tiny, through the command line as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Pokevla = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def recipes(repository: Path) -> Path:
    """Folder of the tiny recipes."""
    return repository / "tests" / "end_to_end" / "recipes"


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the whole way writes."""
    return tmp_path_factory.mktemp("end_to_end") / "demo"


@pytest.fixture(scope="session")
def command_environment(repository: Path, demo_dir: Path) -> dict[str, str]:
    """Environment of every command."""
    return {**os.environ, "PYTHONPATH": str(repository), "POKEVLA_DEMO": str(demo_dir), "COLUMNS": "200"}


@pytest.fixture(scope="session")
def pokevla(repository: Path, command_environment: dict[str, str]) -> Pokevla:
    """Run `pokevla ARGUMENTS` in the checkout and wait; extra keyword arguments are environment variables."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pokevla.cli.main", *map(str, arguments)],
            cwd=repository,
            env={**command_environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return run


@pytest.fixture(scope="session")
def whole_way(pokevla: Pokevla, recipes: Path, demo_dir: Path) -> Path:
    """Directory of a finished tiny demo."""
    result = pokevla("demo", recipes / "demo.yaml")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return demo_dir
