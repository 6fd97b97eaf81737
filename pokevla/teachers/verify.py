"""Looking at a finished cache: what it holds, whether its bytes are whole, whether the teachers still say the same."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor
from torch.nn import functional

from pokevla.data.batch import FeatureArrays, dequantise, stack_features
from pokevla.data.dataset import SHARDS_NAME, Dataset, open_dataset
from pokevla.data.reader import ShardReader
from pokevla.errors import CacheMismatchError, DataError
from pokevla.recipe.sections import CacheConfig
from pokevla.teachers.codec import RecordLayout, decode_record
from pokevla.teachers.encode import Progress, build_teachers, read_images
from pokevla.teachers.fingerprint import cache_fingerprint, differences
from pokevla.teachers.reader import open_directory
from pokevla.teachers.shards import EXTENSION
from pokevla.teachers.store import REBUILD, read_index, read_manifest

LEAST_COSINE = 0.98
"""Recomputed features must agree with the stored ones by this, at every place of the grid. int8 costs at most 0.001 on
features without outliers; other devices and library versions far less (facts: cache, section 3)."""


@dataclass(frozen=True)
class VerifyReport:
    """What a verification found. Cosines are the least over all places of the recomputed samples."""

    records: int
    recomputed: int
    sam_cosine: float | None
    vggt_cosine: float | None


def cache_info(directory: Path) -> dict[str, Any]:
    """Return the manifest of a complete cache, with the bytes it takes on disk (`disk_bytes`).

    Raises:
        DataError: not a cache, not complete, or damaged.
    """
    manifest = read_manifest(directory)
    sizes = [path.stat().st_size for path in (directory / SHARDS_NAME).iterdir() if path.is_file()]
    return {**manifest, "directory": str(directory), "disk_bytes": sum(sizes)}


def verify_cache(
    directory: Path,
    recompute: int = 4,
    on_progress: Progress | None = None,
    *,
    dataset_root: Path | None = None,
    cache: CacheConfig | None = None,
) -> VerifyReport:
    """Check every record's header and checksum, then recompute `recompute` samples, evenly spread, and compare.

    Dataset and teachers are those the manifest names, unless `dataset_root` and `cache` say otherwise.

    Raises:
        DataError: a damaged shard, a sample that is missing, or features that come out differently.
        CacheMismatchError: the dataset or a weights file is not the one the cache was made from.
    """
    manifest = read_manifest(directory)
    layout = RecordLayout.from_dict(manifest["layout"])
    total, done = manifest["num_samples"], 0
    for name in manifest["shards"]:
        for _ in checked_records(directory / SHARDS_NAME / name, layout):
            done += 1
            if on_progress is not None:
                on_progress(done, total)
    if done != total:
        raise DataError(f"{directory} holds {done} samples, its manifest says {total}.", REBUILD)
    if recompute == 0:
        return VerifyReport(total, 0, None, None)
    origin = manifest["origin"]
    dataset = open_dataset(dataset_root or Path(origin["dataset"]))
    cache = cache or CacheConfig.model_validate(origin["cache"])
    recomputed, sam, vggt = _recompute(directory, manifest["parts"], dataset, cache, min(recompute, total))
    return VerifyReport(total, recomputed, sam, vggt)


def checked_records(shard: Path, layout: RecordLayout) -> Iterator[tuple[str, FeatureArrays]]:
    """Yield (key, features) of a shard, read as the tar it is, every header and checksum checked.

    Raises:
        DataError: names the shard, and the key where there is one.
    """
    index = read_index(shard)
    keys = []
    try:
        with tarfile.open(shard, mode="r:") as tar:
            for info in tar:
                key = info.name.removesuffix(f".{EXTENSION}")
                file = tar.extractfile(info)
                record = file.read() if file is not None else b""
                features = decode_record(record, layout, f"{shard}: {key}")
                if key not in index:
                    raise DataError(f"{shard}: {key} is not in the index.", REBUILD)
                payload = memoryview(record)[len(record) - layout.payload_bytes :]
                if xxhash.xxh64_intdigest(payload) != index[key].checksum:
                    raise DataError(f"{shard} is corrupted: {key} does not match its checksum.", REBUILD)
                keys.append(key)
                yield key, features
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{shard} is truncated or corrupted: {error}.", REBUILD) from error
    if keys != list(index):
        raise DataError(f"{shard} holds {len(keys)} samples, its index {len(index)}: it is truncated.", REBUILD)


def _recompute(
    directory: Path, made_from: dict[str, str], dataset: Dataset, cache: CacheConfig, count: int
) -> tuple[int, float, float]:
    """Encode `count` samples anew; return how many, and the least cosines of SAM and VGGT."""
    teachers = build_teachers(cache)
    _, parts = cache_fingerprint(cache, dataset.fingerprint, (teachers.sam.spec, teachers.vggt.spec))
    if changed := differences(made_from, parts):
        raise CacheMismatchError(f"{directory} does not fit: {'; '.join(changed)}.", REBUILD)
    reader = open_directory(directory)
    keys: list[str] = dataset.samples["key"].to_pylist()
    if missing := [key for key in keys if key not in reader]:
        raise DataError(f"The cache {directory} lacks {len(missing)} samples, the first is {missing[0]}.", REBUILD)
    rows = np.unique(np.linspace(0, len(keys) - 1, count).round().astype(np.int64))
    shard_reader = ShardReader(dataset)
    try:
        images = torch.from_numpy(read_images(shard_reader, rows, keys))
    finally:
        shard_reader.close()
    sam, vggt = stored_features([reader.read(keys[row]) for row in rows])
    sam_cosine = functional.cosine_similarity(sam, teachers.sam.encode(images).cpu(), dim=2).min().item()
    vggt_cosine = functional.cosine_similarity(vggt, teachers.vggt.encode(images).cpu(), dim=-1).min().item()
    if min(sam_cosine, vggt_cosine) < LEAST_COSINE:
        raise DataError(
            f"{directory}: recomputed features differ from the stored ones "
            f"(least cosine: SAM {sam_cosine:.4f}, VGGT {vggt_cosine:.4f}, wanted {LEAST_COSINE}).",
            REBUILD,
        )
    return len(rows), sam_cosine, vggt_cosine


def stored_features(stored: list[FeatureArrays]) -> tuple[Tensor, Tensor]:
    """Return the numbers of stored samples as float32: SAM (B, V, C, G, G) and VGGT (B, V, N, T)."""
    sam = [features.sam for features in stored if features.sam is not None]
    vggt = [features.vggt for features in stored if features.vggt is not None]
    return (
        dequantise(stack_features(sam, [features.sam_scales for features in stored], "channel64")),
        dequantise(stack_features(vggt, [features.vggt_scales for features in stored], "token")),
    )
