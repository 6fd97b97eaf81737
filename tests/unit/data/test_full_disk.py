"""A conversion that finds no room ends with one sentence and leaves no partial dataset."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
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


def test_mapped_tables_and_card_on_a_full_disk(
    tmp_path: Path,
    robot_dataset: Callable[..., Path],
    room_for: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, card = robot_dataset(side=8), tmp_path / "cards" / "card.html"
    whole = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    for name in ("samples.arrow", "episodes.arrow"):
        (root / name).unlink()
    with room_for(1_000):
        assert run(["data", "index", str(root)]) == 3
        assert run(["data", "stats", str(root), "--html", str(card)]) == 3
    assert capsys.readouterr().err.count("No room to write") == 2
    assert sorted(path.name for path in root.iterdir() if path.is_file()) == sorted(whole.keys() - {
        "samples.arrow", "episodes.arrow"
    })  # fmt: skip
    assert list(card.parent.iterdir()) == []
    assert run(["data", "index", str(root)]) == 0
    assert {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()} == whole
