"""Reading a dataset of questions shard by shard, each picture once, with several threads."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.images.decoding import decode_image
from pokevla.data.images.picture_hash import frequency_hash, picture_hash, pixels_sha256
from pokevla.data.reader import REMEDY, dataset_shards, member
from pokevla.data.records import MAX_IMAGES, image_names
from pokevla.errors import DamagedDataError, DataError, UsageError
from pokevla.shards.shard_reader import Shards

Progress = Callable[[int, int], None]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Picture:
    """What is known of a picture of a sample."""

    sha256: str
    """Of the pixels of the source, before it was reduced to the size that is stored."""
    frequency: int
    """`frequency_hash`."""
    difference: np.ndarray
    """`picture_hash`, (32,) uint8."""


@dataclass(frozen=True)
class Sample:
    """A sample as it is compared."""

    row: int
    """In `samples.parquet`."""
    record: Mapping[str, Any]
    """Its JSON member."""
    pictures: tuple[Picture, ...]
    """All of them, in order."""


def open_questions(roots: list[Path]) -> list[Dataset]:
    """Datasets of questions, opened.

    Raises:
        UsageError: one is given twice, or is a robot dataset.
        DataError: one is damaged.
    """
    opened = [open_dataset(root, mapped=True) for root in roots]
    for place, dataset in enumerate(opened):
        if dataset.kind != "vlm":
            raise UsageError(f"{dataset.root} is a robot dataset: it has no questions.", "Leave it out.")
        if dataset.fingerprint in [other.fingerprint for other in opened[:place]]:
            raise UsageError(f"{dataset.root} is given twice, or has the content of another one.", "Leave it out.")
    return opened


def each_shard(
    dataset: Dataset, work: Callable[[list[Sample]], Made], threads: int, on_shard: Progress | None = None
) -> Iterator[Made]:
    """What `work` makes of the samples of each shard, in order. It runs in `threads` threads, at most as many shards
    ahead.

    Raises:
        DataError: a shard is damaged, or a sample has no readable record.
    """
    shards = dataset_shards(dataset)
    names, starts = dataset.shard_names, dataset.rows.shard_starts.tolist()

    def make(number: int) -> Made:
        return work(_samples(shards, names[number], starts[number], starts[number + 1] - starts[number]))

    running: deque[Future[Made]] = deque()
    with closing(shards), ThreadPoolExecutor(threads, thread_name_prefix="pokevla-screening") as pool:
        try:
            for number in range(len(names) + threads):
                if number < len(names):
                    running.append(pool.submit(make, number))
                if number >= threads:
                    yield running.popleft().result()
                    if on_shard is not None:
                        on_shard(number - threads + 1, len(names))
        finally:
            for future in running:
                future.cancel()


def _samples(shards: Shards, name: str, first: int, count: int) -> list[Sample]:
    index = shards.index(name)
    if len(index) != count:
        raise DataError(f"{name} has {len(index)} samples, samples.parquet says {count}.", REMEDY)
    samples: list[Sample] = []
    known: dict[tuple[int, Any], Picture] = {}  # of one shard: questions about one picture stand together
    for number, entry in enumerate(index):
        members = shards.read_sample(name, entry)
        record = read_record(members, entry.key)
        checksums = {each.extension: each.checksum for each in entry.members}
        images = [extension for extension in image_names(MAX_IMAGES) if extension in members]
        pictures = []
        for extension, sha256 in zip_longest(images, _stored_sha256(record)[: len(images)]):
            identity = (checksums[extension], sha256)
            if identity not in known:
                known[identity] = _picture(members[extension], sha256, entry.key)
            pictures.append(known[identity])
        samples.append(Sample(first + number, record, tuple(pictures)))
    return samples


def _stored_sha256(record: Mapping[str, Any]) -> list[Any]:
    """What the record says of the sha256 of its images, in order."""
    orig = record.get("orig") or {}
    further = orig.get("further_images") or []
    return [orig.get("image_sha256"), *(each.get("sha256") for each in further)]


def read_record(members: Mapping[str, bytes], key: str) -> dict[str, Any]:
    """The JSON member of a sample of a dataset of questions. DamagedDataError, naming the sample, if it is none."""
    try:
        record = json.loads(member(dict(members), "json", key))
    except ValueError as error:
        raise DamagedDataError(f"sample {key} has JSON that cannot be read ({error}).", REMEDY) from error
    texts = [record.get(name) for name in ("question", "answer")] if isinstance(record, dict) else [None]
    if not all(isinstance(text, str) for text in texts) or not isinstance(record.get("target"), dict):
        raise DamagedDataError(f"sample {key} has JSON without question, answer or target.", REMEDY)
    return record


def _picture(jpeg: bytes, sha256: Any, key: str) -> Picture:
    image = decode_image(jpeg, key)
    known = sha256 if isinstance(sha256, str) and len(sha256) == 64 else pixels_sha256(image)
    return Picture(known, frequency_hash(image), picture_hash(image))
