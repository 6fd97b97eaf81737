"""Verifies a finished cache: contents, checksums, and whether the teachers still produce the same features."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pokevla.data.batch import stack_features
from pokevla.data.dataset import SHARDS_NAME, Dataset, open_dataset
from pokevla.errors import CacheMismatchError, DataError
from pokevla.features.cache_files import EXTENSION, INDEX_CHECKSUMS, read_index, read_manifest
from pokevla.features.codec import dequantise
from pokevla.features.encoding import Progress, build_teachers, encode_images, image_source, read_images
from pokevla.features.feature_reader import FeatureReader
from pokevla.features.fingerprint import cache_fingerprint, differences
from pokevla.features.layout import (
    ALIGNMENT,
    HEADER_BYTES,
    REBUILD,
    Features,
    RecordLayout,
    decode_record,
    encode_features,
)
from pokevla.recipe.sections import CacheConfig
from pokevla.shards.index import CHECKSUMS, ShardIndex

LEAST_COSINE = 0.98
"""Minimum cosine similarity of stored features and recomputed ones in the same codec, at every cell of the grid. Other
devices and library versions cost far less (ours); what a codec costs, which for four bits has no bound, is the matter
of `--fidelity`."""


@dataclass(frozen=True)
class VerifyReport:
    """Result of a verification."""

    records: int
    recomputed: int
    cosines: dict[str, float]
    """Minimum cosine per field over all cells of the recomputed samples, which were stored and read like the others;
    empty if none was recomputed."""


def cache_info(directory: Path) -> dict[str, Any]:
    """Return the manifest of a complete cache, with its size on disk in bytes (`disk_bytes`) and the fields of a record
    with their bytes (`record`).

    Raises:
        DataError: not a cache, or the cache is incomplete or damaged.
    """
    manifest = read_manifest(directory)
    sizes = [path.stat().st_size for path in (directory / SHARDS_NAME).iterdir() if path.is_file()]
    record = [{**field.to_dict(), "bytes": field.num_bytes} for field in RecordLayout.from_manifest(manifest).fields]
    return {**manifest, "directory": str(directory), "disk_bytes": sum(sizes), "record": record}


def verify_cache(
    directory: Path,
    recompute: int = 4,
    on_progress: Progress | None = None,
    *,
    dataset_root: Path | None = None,
    cache: CacheConfig | None = None,
) -> VerifyReport:
    """Check every record's header and checksum, then recompute `recompute` samples, evenly spread, and compare.

    Dataset and teachers are taken from the manifest unless `dataset_root` and `cache` override them.

    Raises:
        DataError: a shard is damaged, a sample is missing, features are not finite, or recomputed ones differ.
        CacheMismatchError: the dataset or a weights file is not the one the cache was made from.
    """
    manifest = read_manifest(directory)
    layout = RecordLayout.from_manifest(manifest)
    total, done = manifest["num_samples"], 0
    checksums, samples = manifest.get(INDEX_CHECKSUMS, {}), 0
    for name in manifest["shards"]:
        index = read_index(directory / SHARDS_NAME / name, checksums.get(name))
        samples += len(index)
        for key, features in checked_records(directory / SHARDS_NAME / name, layout, index):
            _refuse_not_finite(features, f"{directory / SHARDS_NAME / name}: {key}")
            done += 1
            if on_progress is not None:
                on_progress(done, total)
    if samples != total:
        raise DataError(f"{directory} holds {samples} samples, its manifest says {total}.", REBUILD)
    if recompute == 0:
        return VerifyReport(total, 0, {})
    origin = manifest["origin"]
    dataset = open_dataset(dataset_root or Path(origin["dataset"]))
    cache = cache or CacheConfig.model_validate(origin["cache"])
    recomputed = recompute_samples(directory, manifest, dataset, cache, min(recompute, total))
    return VerifyReport(total, *_compare(recomputed, layout, directory))


def checked_records(shard: Path, layout: RecordLayout, index: ShardIndex) -> Iterator[tuple[str, Features]]:
    """Yield (key, features) of a shard, read as a plain tar, checking every header and checksum. `index` is its
    `read_index`.

    Raises:
        DataError: names the shard, and the key if there is one.
    """
    count = 0
    try:
        with tarfile.open(shard, mode="r:") as tar:
            for info in tar:
                key = info.name.removesuffix(f".{EXTENSION}")
                if info.size > layout.payload_bytes + HEADER_BYTES + ALIGNMENT:  # do not allocate it
                    raise DataError(f"{shard}: {key} has {info.size} B, more than a record.", REBUILD)
                file = tar.extractfile(info)
                record = file.read() if file is not None else b""
                features = decode_record(record, layout, f"{shard}: {key}")
                if count >= len(index) or index.key(count) != key:
                    raise DataError(f"{shard}: {key} is not in the index.", REBUILD)
                digest = CHECKSUMS[index.kind]()
                digest.update(memoryview(record)[len(record) - layout.payload_bytes :])
                if digest.intdigest() != index.first_member(count)[2]:
                    raise DataError(f"{shard} is corrupted: {key} does not match its checksum.", REBUILD)
                count += 1
                yield key, features
    except (tarfile.TarError, OSError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{shard} is truncated or corrupted: {error}.", REBUILD) from error
    if count != len(index):
        raise DataError(f"{shard} holds {count} samples, its index {len(index)}: it is truncated.", REBUILD)


def _refuse_not_finite(features: Features, what: str) -> None:
    for name, field in features.items():
        for stored in (field.values, field.scales):
            if stored is not None and not np.isfinite(stored).all():
                raise DataError(f"{what} holds a feature of field {name} that is not finite.", REBUILD)


def _compare(recomputed: Recomputed, layout: RecordLayout, directory: Path) -> tuple[int, dict[str, float]]:
    """Number of samples and the minimum cosine of each field."""
    outputs = {name: values.numpy() for name, values in recomputed.fresh.items()}
    again = stored_features(encode_features(outputs, layout))
    cosines = {name: least_cosine(values, again[name]) for name, values in recomputed.stored.items()}
    if not all(value >= LEAST_COSINE for value in cosines.values()):  # also if one is NaN
        raise DataError(
            f"{directory}: recomputed features differ from the stored ones (minimum cosine: "
            f"{', '.join(f'{name} {value:.4f}' for name, value in cosines.items())}; required: {LEAST_COSINE}).",
            REBUILD,
        )
    return len(recomputed.rows), cosines


@dataclass(frozen=True)
class Recomputed:
    """Some samples of a cache, encoded again. B samples, V views."""

    dataset: Dataset
    rows: np.ndarray
    """(B,) rows of the dataset."""
    images: np.ndarray
    """(B, V, H, W, 3) uint8."""
    fresh: dict[str, Tensor]
    """float32 by field, (B, V, C, G, G) or (B, V, N, T): what the teachers give now."""
    stored: dict[str, Tensor]
    """The same from the cache."""


def recompute_samples(
    directory: Path, manifest: Mapping[str, Any], dataset: Dataset, cache: CacheConfig, count: int
) -> Recomputed:
    """Encode `count` samples of a cache again, evenly spread.

    Raises:
        CacheMismatchError: the dataset or a weights file is not the one the cache was made from.
        DataError: a sample is missing or damaged.
    """
    teachers = build_teachers(cache)
    _, parts = cache_fingerprint(cache, dataset.fingerprint, dataset.num_views, [teacher.spec for teacher in teachers])
    if changed := differences(manifest["parts"], parts):
        raise CacheMismatchError(f"{directory} does not fit: {'; '.join(changed)}.", REBUILD)
    reader = FeatureReader.of(directory, dataset)
    rows = np.unique(np.linspace(0, len(dataset.rows) - 1, count).round().astype(np.int64))
    source = image_source(dataset)
    try:
        images = read_images(source, rows)
    finally:
        source.reader.close()
    fresh = {name: torch.from_numpy(values) for name, values in encode_images(teachers, images).items()}
    return Recomputed(dataset, rows, images, fresh, stored_features([reader.read_features(int(row)) for row in rows]))


def least_cosine(stored: Tensor, recomputed: Tensor) -> float:
    """Minimum cosine over the cells of (B, V, C, G, G) or (B, V, N, T). For maps with one channel, over whole views."""
    if stored.ndim == 5 and stored.shape[2] == 1:
        stored, recomputed = stored.flatten(2), recomputed.flatten(2)
    dim = 2 if stored.ndim == 5 else -1
    return functional.cosine_similarity(stored, recomputed, dim=dim).min().item()


def stored_features(samples: list[Features]) -> dict[str, Tensor]:
    """Dequantise stored samples: float32 by field, (B, V, C, G, G) or (B, V, N, T)."""
    return {name: dequantise(features) for name, features in stack_features(samples).items()}
