"""Builds a cache: runs every image of a dataset through all teachers, once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import pokevla
from pokevla.data.dataset import SHARDS_NAME, Dataset, open_dataset
from pokevla.errors import DataError, DiskFullError, UsageError
from pokevla.features.cache_claims import claim_shard, claimed_by, finish_lock, remove_locks
from pokevla.features.cache_files import (
    INDEX_CHECKSUMS,
    read_index,
    read_manifest,
    write_manifest,
    write_shard,
)
from pokevla.features.encoding import Counter, Encoder, Progress, build_teachers, encoding_threads, image_source
from pokevla.features.fingerprint import cache_fingerprint, cache_layout
from pokevla.features.layout import ALIGNMENT, RecordLayout
from pokevla.files.failures import free_bytes
from pokevla.files.ownership import refuse_overlap
from pokevla.files.remote.urls import is_url
from pokevla.recipe.paths import paths_of
from pokevla.recipe.sections import CacheConfig, TeacherConfig
from pokevla.shards.index import index_path
from pokevla.teachers.teacher import RANDOM_NOTE, Teacher

logger = logging.getLogger(__name__)

STALL_S = 3600.0
"""A shard of some hundred samples takes minutes, on a CPU with the largest teachers an hour (ours)."""
_POLL_S = 0.5


def build_cache(
    dataset_root: Path,
    cache: CacheConfig,
    batch: int = 8,
    on_progress: Progress | None = None,
    device: str | None = None,
    *,
    names: Sequence[str] = (),
    stall_s: float | None = STALL_S,
) -> Path:
    """Compute the cache of one robot dataset and return its directory. A finished cache is left unchanged, except that
    shards which are missing or whose index is damaged are computed again, and a damaged manifest is written again.

    Any number of processes, on any machines, may build one cache at the same time. Each claims one missing shard after
    another (`pokevla.features.cache_claims`) and takes over those of processes that were killed. Writes one feature
    shard per dataset shard, with the same keys in the same order; its bytes depend on neither processes nor
    interruptions.

    Args:
        dataset_root: a robot dataset.
        cache: teachers, codecs and place.
        batch: samples that the teachers encode together.
        on_progress: called with (done, total) samples, starting with those of the finished shards. Those of other
            processes count soon after their shard is complete.
        device: of the teachers; None: a GPU if there is one.
        names: shards to begin with. Processes that begin elsewhere rarely compete for a shard.
        stall_s: longest time to wait for other processes while none of them completes a shard. None: do not wait for
            them; whoever writes the last shard completes the cache.

    Raises:
        DataError: not a robot dataset, damaged shards, images that are not square, or features that are not finite.
        CheckpointError: the teacher weights are missing or do not match.
        DiskFullError: the disk is full. Finished shards remain; no partial file does.
        UsageError: other processes hold the last shards and complete none for `stall_s`.
        EnvironmentSetupError: the file system has no locks.
    """
    build = _prepare(dataset_root, cache, device)
    directory, total = build.directory, build.dataset.samples.num_rows
    if build.is_complete():
        if on_progress is not None:
            on_progress(total, total)
        return directory
    (directory / SHARDS_NAME).mkdir(parents=True, exist_ok=True)
    missing = build.missing
    _check_room(directory, build.count(missing) * (build.layout.payload_bytes + ALIGNMENT))
    elsewhere = _Elsewhere(build, missing)
    with build.encoder(batch) as encoder:
        counter = Counter(total - build.count(missing), total, on_progress, elsewhere.count)
        _compute(build, [*(name for name in names if name in missing), *missing], encoder, counter, elsewhere, stall_s)
    with finish_lock(directory):
        left = build.missing
        if not left:
            if not build.is_complete():
                build.finish()
            remove_locks(directory)  # whoever was not the last to write may have been the last to look
    if not left:
        counter.complete()
    return directory


def _compute(
    build: _Build,
    order: Sequence[str],
    encoder: Encoder,
    counter: Counter,
    elsewhere: _Elsewhere,
    stall_s: float | None,
) -> None:
    """Compute the shards of `order` that nobody else computes. Returns when all exist, or with `stall_s` None when the
    rest is being computed."""
    left = list(dict.fromkeys(order))
    last_progress = time.monotonic()
    while left:
        before = len(left)
        for name in list(left):
            with claim_shard(build.directory, name) as mine:
                if not mine:
                    continue
                if build.lacks(name):
                    elsewhere.forget(name)
                    build.write(name, encoder, counter)
            left.remove(name)
        if len(left) < before:
            last_progress = time.monotonic()
        elif stall_s is None:
            return
        elif time.monotonic() - last_progress > stall_s:
            raise UsageError(
                f"{len(left)} shards of {build.directory} are not complete, the first is {left[0]}; it is claimed by "
                f"{claimed_by(build.directory, left[0])}, and none was completed for {stall_s:g} s.",
                "End that process, and run the same command again.",
            )
        else:
            counter.tell()
            time.sleep(_POLL_S)


class _Elsewhere:
    """Samples of the shards that other processes have completed since this one began."""

    def __init__(self, build: _Build, missing: Sequence[str]) -> None:
        """A missing shard that has an index has a damaged one: nobody sees on the disk when it is computed again."""
        self._build = build
        there = self._listing()
        self._waiting = {name for name in missing if index_path(Path(name)).name not in there}

    def forget(self, name: str) -> None:
        """This process computes a shard itself, and counts it."""
        self._waiting.discard(name)

    def count(self) -> int:
        """Lists the folder of shards once."""
        there = self._listing()
        return self._build.count(name for name in self._waiting if index_path(Path(name)).name in there)

    def _listing(self) -> set[str]:
        with os.scandir(self._build.directory / SHARDS_NAME) as entries:
            return {entry.name for entry in entries}


def cache_shards(dataset_root: Path, cache: CacheConfig) -> tuple[Path, list[str], list[str]]:
    """(directory of a cache, names of all its shards, names of the missing ones). Loads no teacher.

    Raises:
        DataError: not a robot dataset. CheckpointError: the teacher weights are missing.
    """
    dataset = _open_robot_dataset(dataset_root)
    fingerprint, _ = cache_fingerprint(cache, dataset.fingerprint, dataset.num_views)
    directory, names = cache.root / fingerprint, list(_rows_by_shard(dataset))
    return directory, names, _missing(directory, names)


def _missing(directory: Path, names: Iterable[str]) -> list[str]:
    """Names of the shards that do not exist, or whose index is damaged."""
    checksums: dict[str, str] = {}
    with suppress(DataError):  # not complete, or its manifest is damaged: it is written again
        checksums = read_manifest(directory).get(INDEX_CHECKSUMS, {})
    return [name for name in names if not _is_there(directory / SHARDS_NAME / name, checksums.get(name))]


def _is_there(shard: Path, checksum: str | None) -> bool:
    if not (shard.is_file() and index_path(shard).is_file()):
        return False
    try:
        read_index(shard, checksum)
    except DataError as error:
        logger.warning("computing it again: %s", error.message)
        return False
    return True


def _open_robot_dataset(root: Path) -> Dataset:
    dataset = open_dataset(root)
    if dataset.kind != "robot":
        raise DataError(f"{root} is a {dataset.kind} dataset; features are cached for robot datasets.")
    return dataset


@dataclass(frozen=True)
class _Build:
    """One cache being built."""

    dataset: Dataset
    cache: CacheConfig
    teachers: list[Teacher]
    layout: RecordLayout
    fingerprint: str
    parts: dict[str, str]
    rows_by_shard: dict[str, np.ndarray]

    @property
    def directory(self) -> Path:
        return self.cache.root / self.fingerprint

    def lacks(self, name: str) -> bool:
        """Whether a shard does not exist, or has a damaged index."""
        return bool(_missing(self.directory, [name]))

    @property
    def missing(self) -> list[str]:
        """Names of the shards that do not exist yet."""
        return _missing(self.directory, self.rows_by_shard)

    def is_complete(self) -> bool:
        """Whether the cache is finished, with a good manifest and the index of every shard."""
        try:
            read_manifest(self.directory)
        except DataError:
            return False
        return not self.missing

    def count(self, names: Iterable[str]) -> int:
        """Number of samples in the shards `names`."""
        return sum(len(self.rows_by_shard[name]) for name in names)

    @contextmanager
    def encoder(self, batch: int) -> Iterator[Encoder]:
        source = image_source(self.dataset)
        try:
            with encoding_threads(self.teachers[0].device.type != "cpu") as (pool, workers):
                yield Encoder(source, self.teachers, self.layout, batch, pool, workers)
        finally:
            source.reader.close()

    def write(self, name: str, encoder: Encoder, counter: Counter) -> None:
        """Compute and write one shard."""
        write_shard(self.directory / SHARDS_NAME / name, encoder.run(self.rows_by_shard[name], counter), self.layout)

    def finish(self) -> None:
        """Write the manifest and the marker of a complete cache."""
        write_manifest(self.directory, _manifest(self))


def _prepare(dataset_root: Path, cache: CacheConfig, device: str | None) -> _Build:
    if is_url(cache.root):
        raise UsageError(
            f"cache.root is the URL {cache.root}: caches are built in a folder.",
            "Build it in a local folder (cache.root=FOLDER), and upload that.",
        )
    refuse_overlap(
        cache.root / "cache", [dataset_root, *(path for path in paths_of(cache).values() if path != cache.root)]
    )
    dataset = _open_robot_dataset(dataset_root)
    layout = cache_layout(cache, dataset.num_views)  # raises before any weights are read
    teachers = build_teachers(cache, device)
    fingerprint, parts = cache_fingerprint(
        cache, dataset.fingerprint, dataset.num_views, [teacher.spec for teacher in teachers]
    )
    return _Build(dataset, cache, teachers, layout, fingerprint, parts, _rows_by_shard(dataset))


def _rows_by_shard(dataset: Dataset) -> dict[str, np.ndarray]:
    """Rows of each non-empty shard, by file name, in file order."""
    shards = dataset.samples["shard"].to_numpy()
    return {name: rows for i, name in enumerate(dataset.shard_names) if (rows := np.flatnonzero(shards == i)).size}


def _check_room(directory: Path, needed: int) -> None:
    free = free_bytes(directory)
    if needed > free:
        raise DiskFullError(
            f"{directory} needs {needed / 2**30:.2f} GiB more, its disk has {free / 2**30:.2f} GiB left.",
            "Free some space, or set cache.root to another disk.",
        )


def _manifest(build: _Build) -> dict[str, Any]:
    specs = {teacher.spec.kind: teacher.spec for teacher in build.teachers}
    return {
        "fingerprint": build.fingerprint,
        "parts": build.parts,
        "fields": build.layout.to_list(),
        "num_samples": build.dataset.samples.num_rows,
        "payload_bytes": build.layout.payload_bytes,
        "shards": list(build.rows_by_shard),
        "random": {name: spec.random for name, spec in specs.items()},
        "teachers": {name: spec.describe() for name, spec in specs.items()},
        "note": RANDOM_NOTE if any(spec.random for spec in specs.values()) else None,
        "versions": {
            "pokevla": pokevla.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "origin": {
            "dataset": str(build.dataset.root.absolute()),
            "cache": _with_absolute_paths(build.cache).model_dump(mode="json"),
        },
    }


def _with_absolute_paths(cache: CacheConfig) -> CacheConfig:
    """The same configuration with absolute paths, so that it is valid from any working directory."""

    def absolute(teacher: TeacherConfig) -> TeacherConfig:
        return teacher.model_copy(update={"weights": teacher.weights.absolute() if teacher.weights else None})

    named = {name: teacher and absolute(teacher) for name, teacher in (("sam", cache.sam), ("vggt", cache.vggt))}
    others = [absolute(teacher) for teacher in cache.teachers]
    return cache.model_copy(update={"root": cache.root.absolute(), **named, "teachers": others})
