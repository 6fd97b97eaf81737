"""Damage to the small files of a cache is found before anything is read or allocated by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pokevla.errors import CacheMismatchError, DataError
from pokevla.features.cache_files import find_cache, read_manifest, write_manifest, write_shard
from pokevla.features.feature_reader import open_directory
from pokevla.features.layout import in_file_order
from tests.flips import assert_no_flip_is_used_silently
from tests.unit.features.toy_layouts import ALONE, random_features

KEYS = ["k0", "k1"]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A complete cache of two samples."""
    directory = tmp_path / "f00d"
    (directory / "shards").mkdir(parents=True)
    samples = [(key, random_features(number, ALONE)) for number, key in enumerate(KEYS)]
    write_shard(directory / "shards" / "a-00000.tar", samples, ALONE)
    content = {
        "fingerprint": "f00d", "parts": {"dataset": "d"}, "fields": ALONE.to_list(), "num_samples": 2,
        "payload_bytes": ALONE.payload_bytes, "shards": ["a-00000.tar"],
    }  # fmt: skip
    write_manifest(directory, content)
    return directory


def everything(directory: Path) -> Any:
    """All features of a cache."""
    reader = open_directory(directory)
    arrays = [array.tobytes() for key in KEYS for array in in_file_order(reader.read(key))]
    return arrays, reader.layout


@pytest.mark.parametrize("name", ["manifest.json", "shards/a-00000.idx"])
def test_every_flipped_byte_is_found_or_changes_nothing(cache: Path, name: str) -> None:
    assert_no_flip_is_used_silently(cache / name, lambda: everything(cache), cache)


def edit(cache: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest of a cache from before there were checksums."""
    path = cache / "manifest.json"
    content = json.loads(path.read_text())
    del content["xxh64"], content["index_xxh64"]
    change(content)
    path.write_text(json.dumps(content))


def test_a_cache_of_before_checksums_is_read(cache: Path) -> None:
    before = everything(cache)
    edit(cache, lambda content: None)
    assert everything(cache) == before


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([2, 1 << 40, 2], r"has the shape \(2, 1099511627776, 2\)"),
        ([2, 4096, 2], r"gives its records \d+ B, its fields"),
    ],
)
def test_a_huge_shape_is_not_allocated(cache: Path, shape: list[int], words: str) -> None:
    edit(cache, lambda content: content["fields"][0].update(shape=shape))
    with pytest.raises(DataError, match=words):
        open_directory(cache)


@pytest.mark.parametrize(
    ("entry", "words"),
    [({"num_samples": 3}, "holds 2 samples, its manifest says 3"), ({"shards": None}, "shards is None")],
)
def test_entries_that_do_not_fit_are_refused(cache: Path, entry: dict[str, Any], words: str) -> None:
    edit(cache, lambda content: content.update(entry))
    with pytest.raises(DataError, match=words):
        open_directory(cache)


def test_a_damaged_cache_does_not_hide_what_the_others_differ_in(cache: Path) -> None:
    damaged = cache.parent / "bad"
    damaged.mkdir()
    (damaged / "COMPLETE").write_text("bad\n")
    (damaged / "manifest.json").write_text("{")
    with pytest.raises(CacheMismatchError, match="dataset is `d` in the cache, `e` in the recipe"):
        find_cache(cache.parent, "other", {"dataset": "e"})
    assert read_manifest(cache)["fingerprint"] == "f00d"
