"""Converted question sets, and a mixture of them, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.cli.main import run
from tests.unit.data.mixing.planted import convert_sources, write_recipe, write_sources


@pytest.fixture(scope="package")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`few` and `many` hold the same sets in few and in many shards."""
    root = tmp_path_factory.mktemp("sources")
    write_sources(root / "raw")
    convert_sources(root / "raw", root / "few", 1024)
    convert_sources(root / "raw", root / "many", 7)
    return root


@pytest.fixture(scope="package")
def mixed(sources: Path) -> Path:
    """A mixture of the sets in few shards."""
    recipe = write_recipe(sources / "few.yaml", sources / "few", sources / "out")
    assert run(["data", "mix", str(recipe), "--workers", "0"]) == 0
    return sources / "out/vlm"
