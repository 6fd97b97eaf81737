"""Which copies of shards make room for others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pokevla.files.remote.settings import StorageSettings
from pokevla.files.remote.store import Store
from pokevla.shards.remote.staging import SUBFOLDER, Staging

SIZE = 1000


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """Room for two shards."""
    return Staging(tmp_path / "disk", 2 * SIZE + 1, Store(StorageSettings()))


def copied(staging: Staging, tmp_path: Path, name: str, used: int) -> Path | None:
    """Copy a shard that was last used at second `used`; its copy, if it fits."""
    source = tmp_path / name
    source.write_bytes(name.encode() * (SIZE // len(name)))
    target = staging.path(source, "1")
    if not staging.copy(source, target):
        return None
    os.utime(target, (used, used))
    return target


def test_the_copy_used_least_recently_makes_room(staging: Staging, tmp_path: Path) -> None:
    first, second = copied(staging, tmp_path, "aa", 20), copied(staging, tmp_path, "bb", 10)
    assert first is not None
    assert second is not None
    third = copied(staging, tmp_path, "cc", 30)
    assert third is not None
    assert third.read_bytes() == b"c" * SIZE
    assert (first.exists(), second.exists()) == (True, False)
    assert third.parent == tmp_path / "disk" / SUBFOLDER


def test_an_open_copy_is_not_deleted(staging: Staging, tmp_path: Path) -> None:
    first, second = copied(staging, tmp_path, "aa", 20), copied(staging, tmp_path, "bb", 10)
    assert first is not None
    assert second is not None
    held = [staging.opened(second, SIZE), staging.opened(first, SIZE)]
    assert None not in held
    assert copied(staging, tmp_path, "cc", 30) is None, "both are in use"
    assert first.exists()
    assert second.exists()
    held.pop()
    assert copied(staging, tmp_path, "cc", 30) is not None
    assert (first.exists(), second.exists()) == (False, True)


def test_a_shard_above_the_bound_deletes_nothing(staging: Staging, tmp_path: Path) -> None:
    first = copied(staging, tmp_path, "aa", 20)
    large = tmp_path / "large"
    large.write_bytes(bytes(3 * SIZE))
    assert not staging.copy(large, staging.path(large, "1"))
    assert first is not None
    assert first.exists()


def test_a_copy_of_another_size_is_not_used(staging: Staging, tmp_path: Path) -> None:
    first = copied(staging, tmp_path, "aa", 20)
    assert first is not None
    assert staging.opened(first, SIZE + 1) is None
    assert staging.opened(first.with_name("none.tar"), SIZE) is None
