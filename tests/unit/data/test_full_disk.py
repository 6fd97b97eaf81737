"""A conversion that finds no room ends with one sentence and leaves no partial dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pokevla.cli.main import run
from tests.conftest import mounted_disk


def test_convert_on_a_small_disk(
    tmp_path: Path, libero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source = libero_file()
    with mounted_disk(tmp_path / "disk", "100k") as disk:
        code = run(["data", "convert", "libero", str(source), str(disk.folder / "out")])

        assert code == 3
        assert "No room to write" in capsys.readouterr().err
        assert not (disk.folder / "out").exists()
        assert not [path for path in disk.folder.rglob("*") if path.is_file()]
