"""The reader joins a cache with its dataset by key, and refuses a mismatch with the reason."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import xxhash

from pokevla.data.dataset import open_dataset
from pokevla.errors import CacheMismatchError, DamagedDataError, DataError
from pokevla.features.cache_build import build_cache
from pokevla.features.cache_files import read_manifest, write_manifest
from pokevla.features.cache_verify import verify_cache
from pokevla.features.feature_reader import FeatureReader, open_directory, open_features
from pokevla.features.fingerprint import cache_fingerprint
from pokevla.features.layout import in_file_order
from pokevla.recipe.sections import CacheConfig, TeacherConfig
from pokevla.shards import shard_reader
from pokevla.shards.index import IndexEntry, dump_index, index_path, load_index
from pokevla.teachers.teacher import build_teacher


def test_missing_cache_names_the_command_that_builds_it(dataset_root: Path, cache_config: CacheConfig) -> None:
    with pytest.raises(DataError, match="pokevla cache build RECIPE") as caught:
        open_features(cache_config, [open_dataset(dataset_root)])
    assert not isinstance(caught.value, CacheMismatchError)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"sam": TeacherConfig(kind="sam", preset="tiny", seed=5)}, "sam.weights"),
        ({"vggt": TeacherConfig(kind="vggt", preset="tiny", seed=5)}, "vggt.weights"),
        ({"sam_codec": "fp16"}, "sam.codec"),
    ],
)
def test_cache_of_other_teachers_is_refused_naming_both_values(
    dataset_root: Path, cache_config: CacheConfig, change: dict, part: str
) -> None:
    build_cache(dataset_root, cache_config)
    other = cache_config.model_copy(update=change)
    dataset = open_dataset(dataset_root)
    _, made = cache_fingerprint(cache_config, dataset.fingerprint, 2)
    _, asked = cache_fingerprint(other, dataset.fingerprint, 2)
    with pytest.raises(CacheMismatchError, match="pokevla cache build RECIPE") as caught:
        open_features(other, [dataset])
    message = str(caught.value)
    assert f"{part} is `{made[part]}` in the cache, `{asked[part]}` in the recipe" in message
    assert "dataset is" not in message


def test_weights_that_change_between_build_and_training_are_noticed(
    dataset_root: Path, cache_config: CacheConfig, tmp_path: Path
) -> None:
    weights = tmp_path / "sam.safetensors"
    state = build_teacher(TeacherConfig(kind="sam", preset="tiny")).module.state_dict()
    safetensors.torch.save_file(state, weights)
    config = cache_config.model_copy(
        update={"sam": TeacherConfig(kind="sam", preset="tiny", weights=weights), "vggt": None}
    )
    build_cache(dataset_root, config)
    dataset = open_dataset(dataset_root)
    open_features(config, [dataset])
    safetensors.torch.save_file({name: value + 1e-3 for name, value in state.items()}, weights)
    with pytest.raises(CacheMismatchError, match=r"sam\.weights is `sha256:.* in the cache, `sha256:.* in the recipe"):
        open_features(config, [dataset])


def test_cache_of_half_of_the_dataset_is_refused(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory, dataset = build_cache(dataset_root, cache_config), open_dataset(dataset_root)
    manifest = {name: value for name, value in read_manifest(directory).items() if name != "schema_version"}
    write_manifest(directory, {**manifest, "shards": manifest["shards"][:2], "num_samples": 16})
    with pytest.raises(DataError, match=r"lacks the shard libero_object-00002\.tar of the dataset.*cache build RECIPE"):
        open_features(cache_config, [dataset])
    write_manifest(directory, {**manifest, "num_samples": 16})
    with pytest.raises(DataError, match="has 16 samples, its dataset 20"):
        open_features(cache_config, [dataset])
    (directory / "COMPLETE").unlink()  # the build was stopped half-way
    with pytest.raises(DataError, match=r"is not complete \(3 shards are\).*Continue with: pokevla cache build RECIPE"):
        open_features(cache_config, [dataset])


def test_shards_of_a_cache_that_are_exchanged_are_refused(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory, dataset = build_cache(dataset_root, cache_config), open_dataset(dataset_root)
    manifest = {name: value for name, value in read_manifest(directory).items() if name != "schema_version"}
    first, second = (directory / "shards" / f"libero_object-0000{number}" for number in range(2))
    for suffix in (".tar", ".idx"):  # both have 8 samples
        first.with_suffix(suffix).rename(directory / "x")
        second.with_suffix(suffix).rename(first.with_suffix(suffix))
        (directory / "x").rename(second.with_suffix(suffix))
    write_manifest(directory, manifest)
    (reader,) = open_features(cache_config, [dataset])
    with pytest.raises(DataError, match=r"00000\.tar does not have the keys of its dataset"):
        reader.read_features(0)


def test_a_cache_that_is_built_again_during_a_training_is_not_mixed_with_the_old_one(
    dataset_root: Path, cache_config: CacheConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, dataset = build_cache(dataset_root, cache_config), open_dataset(dataset_root)
    config = cache_config.model_copy(update={"checksums": "first_read"})
    monkeypatch.setattr(shard_reader, "OPEN_SHARDS", 1)
    (reader,) = open_features(config, [dataset])
    reader.read_features(0)
    reader.read_features(8)  # closes the first shard
    seeds = {"sam": TeacherConfig(kind="sam", preset="tiny", seed=5), "root": tmp_path / "other"}
    other = build_cache(dataset_root, cache_config.model_copy(update=seeds))
    for path in (other / "shards").glob("*-00000.*"):
        path.replace(directory / "shards" / path.name)
    with pytest.raises(DataError, match=r"00000\.tar was replaced or changed while it was in use.* Start again"):
        reader.read_features(0)


def test_cache_of_another_dataset_is_refused(make_dataset: Callable[..., Path], cache_config: CacheConfig) -> None:
    build_cache(make_dataset("one", seed=1), cache_config)
    with pytest.raises(CacheMismatchError, match="dataset is"):
        open_features(cache_config, [open_dataset(make_dataset("two", seed=2))])


def test_cache_under_a_wrong_name_is_refused(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory = build_cache(dataset_root, cache_config)
    other = cache_config.model_copy(update={"sam_codec": "fp16"})
    dataset = open_dataset(dataset_root)
    fingerprint, parts = cache_fingerprint(other, dataset.fingerprint, 2)
    shutil.copytree(directory, cache_config.root / fingerprint)
    with pytest.raises(CacheMismatchError, match="has the fingerprint"):
        FeatureReader.open(cache_config.root, fingerprint, dataset, parts)


def test_each_dataset_of_a_mixture_gets_its_own_cache_even_with_equal_keys(
    make_dataset: Callable[..., Path], cache_config: CacheConfig
) -> None:
    roots = [make_dataset("one", seed=1), make_dataset("two", seed=2)]
    for root in roots:
        build_cache(root, cache_config)
    first, second = open_features(cache_config, [open_dataset(root) for root in roots])
    assert first.keys == second.keys
    assert not np.array_equal(first.read(first.keys[0])["sam"].values, second.read(first.keys[0])["sam"].values)


def test_reading_into_given_arrays_allocates_nothing_new(dataset_root: Path, cache_config: CacheConfig) -> None:
    reader = open_directory(build_cache(dataset_root, cache_config))
    slot = reader.layout.new_arrays()
    assert reader.read(reader.keys[7], into=slot) is slot
    for given, fresh in zip(in_file_order(slot), in_file_order(reader.read(reader.keys[7])), strict=True):
        np.testing.assert_array_equal(given, fresh)


def test_threads_read_what_one_thread_reads(dataset_root: Path, cache_config: CacheConfig) -> None:
    reader = open_directory(build_cache(dataset_root, cache_config))
    reader._shards._limit = 1  # every change of shard evicts a file that may be in use
    expected = [reader.read(key)["sam"].values.tobytes() for key in reader.keys]
    order = np.random.default_rng(0).integers(0, 20, 400)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda i: reader.read(reader.keys[i])["sam"].values.tobytes(), order))
    assert read == [expected[i] for i in order]
    assert len(open_shards()) == 1


def open_shards() -> list[str]:
    """The feature shards that this process has opened."""
    links = Path("/proc/self/fd").iterdir()
    targets = [os.readlink(link) for link in links if link.exists()]
    return [target for target in targets if target.endswith(".tar") and "/cache/" in target]


@pytest.mark.parametrize(
    ("damage", "message"), [("truncate", "is truncated"), ("flip", "is corrupted"), ("remove", "cannot be read")]
)
def test_damaged_shard_is_named_with_the_key(
    dataset_root: Path, cache_config: CacheConfig, damage: str, message: str
) -> None:
    directory = build_cache(dataset_root, cache_config)
    shard = directory / "shards" / "libero_object-00002.tar"
    content = bytearray(shard.read_bytes())
    reader = open_directory(directory)
    key = reader.keys[-1]
    payload = load_index(shard, "")[3].members[0].offset
    if damage == "truncate":
        shard.write_bytes(content[: payload + 10])
    elif damage == "flip":
        content[payload] ^= 255
        shard.write_bytes(content)
    else:
        shard.unlink()
    with pytest.raises(DataError, match=message) as caught:
        reader.read(key)
    assert shard.name in str(caught.value)
    assert key in str(caught.value)


def test_damaged_index_or_manifest_is_refused(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory = build_cache(dataset_root, cache_config)
    index = directory / "shards" / "libero_object-00000.idx"
    text = index.read_text()
    index.write_text(text[: len(text) // 2])
    (reader,) = open_features(cache_config, [open_dataset(dataset_root)])
    with pytest.raises(DataError, match=r"idx is damaged: its checksum differs.*pokevla cache build RECIPE"):
        reader.read_features(0)
    index.unlink()
    with pytest.raises(DataError, match=r"00000\.idx is missing.*pokevla cache build RECIPE"):
        open_features(cache_config, [open_dataset(dataset_root)])
    index.write_text(text)
    (directory / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json is damaged: not JSON"):
        open_features(cache_config, [open_dataset(dataset_root)])


def test_unknown_key_is_refused(dataset_root: Path, cache_config: CacheConfig) -> None:
    reader = open_directory(build_cache(dataset_root, cache_config))
    with pytest.raises(DataError, match="holds no sample nobody"):
        reader.read("nobody")


def as_version_1(directory: Path) -> None:
    """Rewrite the manifest as it was when there were only SAM and VGGT."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["xxh64"], manifest["index_xxh64"]
    fields = manifest.pop("fields")
    groups = {"int8_channel64": "channel64", "int8_token": "token", "fp16": "none"}
    manifest["layout"] = {
        field["name"]: {"shape": field["shape"], "dtype": field["dtype"], "group": groups[field["codec"]]}
        for field in fields
    }
    path.write_text(json.dumps({**manifest, "schema_version": 1}))


def test_cache_with_a_manifest_of_version_1_is_read(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory = build_cache(dataset_root, cache_config)
    (reader,) = open_features(cache_config, [open_dataset(dataset_root)])
    as_version_1(directory)
    (older,) = open_features(cache_config, [open_dataset(dataset_root)])
    assert older.layout == reader.layout
    assert verify_cache(directory, recompute=2).records == 20


def test_shards_with_the_checksums_of_before_are_read(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory = build_cache(dataset_root, cache_config)
    (reader,) = open_features(cache_config, [open_dataset(dataset_root)])
    expected = [reader.read_features(row)["sam"].values.tobytes() for row in range(20)]
    shard = directory / "shards" / "libero_object-00001.tar"
    assert load_index(shard, "").kind == "xxh3_64"
    content = shard.read_bytes()
    entries = [
        IndexEntry(entry.key, tuple(
            m._replace(checksum=xxhash.xxh64_intdigest(content[m.offset : m.offset + m.size])) for m in entry.members
        ))
        for entry in load_index(shard, "")
    ]  # fmt: skip
    index_path(shard).write_text(dump_index(entries))
    as_version_1(directory)
    (older,) = open_features(cache_config, [open_dataset(dataset_root)])
    assert [older.read_features(row)["sam"].values.tobytes() for row in range(20)] == expected
    assert verify_cache(directory, recompute=0).records == 20


def test_checksums_are_compared_at_every_read_or_at_the_first(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory = build_cache(dataset_root, cache_config)
    shard = directory / "shards" / "libero_object-00000.tar"
    good, damaged = shard.read_bytes(), bytearray(shard.read_bytes())
    damaged[load_index(shard, "")[3].members[0].offset] ^= 1
    (every,), (first,) = (
        open_features(cache_config.model_copy(update={"checksums": rule}), [open_dataset(dataset_root)])
        for rule in ("every_read", "first_read")
    )

    def store(content: bytes | bytearray) -> None:
        shard.write_bytes(content)
        os.utime(
            shard, ns=(0, 0)
        )  # as a disk or memory that errs leaves it; a shard that was written to is checked again

    for reader, is_noticed_again in ((every, True), (first, False)):
        store(damaged)
        with pytest.raises(DamagedDataError, match="is corrupted"):
            reader.read_features(3)
        store(good)
        reader.read_features(3)
        store(damaged)
        with pytest.raises(DataError) if is_noticed_again else contextlib.nullcontext():
            reader.read_features(3)


def test_manifest_of_an_unknown_version_is_refused_with_the_command(
    dataset_root: Path, cache_config: CacheConfig
) -> None:
    path = build_cache(dataset_root, cache_config) / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": 2', '"schema_version": 3'))
    with pytest.raises(DataError, match=r"schema version 3, this program reads 1 and 2\.(.|\n)*pokevla cache build"):
        open_features(cache_config, [open_dataset(dataset_root)])
