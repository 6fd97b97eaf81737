"""No output overlaps an input, and nothing foreign is replaced, however paths and names are spelled."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pokevla.errors import DataError, UsageError
from pokevla.files.ownership import foreign_entry, literal, refuse_foreign, refuse_overlap


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "data" / "raw").mkdir(parents=True)
    return tmp_path / "data" / "raw"


@pytest.mark.parametrize(
    ("out", "relation"),
    [
        ("raw", "is"),
        ("raw/../raw/", "is"),
        (".", "contains"),
        ("..", "contains"),
        ("raw/new/deeper", "lies in"),
        ("link", "is"),
        ("link/new", "lies in"),
    ],
)
def test_an_output_that_overlaps_a_source_is_refused(source: Path, out: str, relation: str) -> None:
    (source.parent / "link").symlink_to(source)
    with pytest.raises(UsageError, match=rf"The output .* {relation} "):
        refuse_overlap(source.parent / out, [source.parent / "other", source])


def test_a_link_below_the_source_is_seen_when_the_files_are_named(source: Path) -> None:
    disk = source.parent / "disk"
    disk.mkdir()
    (disk / "demo.hdf5").write_text("")
    (source / "suite").symlink_to(disk)
    with pytest.raises(UsageError, match="contains the source"):
        refuse_overlap(disk, [source, source / "suite" / "demo.hdf5"])


def test_neighbours_are_allowed(source: Path) -> None:
    for out in ("raw2", "out", "ra", "raw-new/raw"):
        refuse_overlap(source.parent / out, [source, source.parent / "missing"])


@pytest.mark.parametrize("name", ["notes.txt", "shards/deep/a.tar", "shards/a.tar.bak", "dataset.json/x", "a*b"])
def test_a_foreign_file_is_named(tmp_path: Path, name: str) -> None:
    patterns = ["dataset.json", "shards/*.tar", "logs/**", literal("a*")]
    for ours in ("shards/a.tar", "logs/deep/er/x", "a*"):
        (tmp_path / ours).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / ours).write_text("")
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    assert foreign_entry(tmp_path, patterns) is None
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("thesis")
    with pytest.raises(DataError, match=r"is not replaced or deleted: .* does not belong to the dataset"):
        refuse_foreign(tmp_path, "dataset", patterns)
    assert foreign_entry(tmp_path, patterns) == tmp_path / name


def test_links_and_pipes_are_foreign_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    assert foreign_entry(tmp_path, ["**"]) == tmp_path / "link"
    (tmp_path / "link").unlink()
    os.mkfifo(tmp_path / "pipe")
    assert foreign_entry(tmp_path, ["**"]) == tmp_path / "pipe"
