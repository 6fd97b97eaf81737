"""Samples that hold a picture or a question of a benchmark, by a deny list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pokevla.data.dataset import Dataset
from pokevla.data.screening.deny_list import DenyList, picture_name
from pokevla.data.screening.questions import ngram_hashes, question_text, text_hash
from pokevla.data.screening.scanning import Picture, Progress, Sample, each_shard

WHOLE_FREQUENCY, PART_FREQUENCY = 8, 6
"""Bits of 64 of `frequency_hash` in which a picture may differ from one of a benchmark, and from a part of one."""
MOST_DIFFERENCE = 64
"""Bits of 256 of `picture_hash` in which it may, besides."""
ALONE_DIFFERENCE = 24
"""Bits of `picture_hash` that suffice alone: what is drawn into a picture (CV-Bench's boxes) moves the other one."""
NGRAM_SHARE = 0.5
"""Share of the 8-word sequences of a benchmark's question from which another question counts as the same."""


@dataclass(frozen=True)
class Hit:
    """One sample, and why it may not be trained on."""

    dataset: Dataset
    row: int
    key: str
    code: str
    benchmark: str
    item: str
    detail: str
    """How near it is."""

    @property
    def because(self) -> str:
        """The question of the benchmark, and how near it is."""
        return f"{self.benchmark} {self.item}: {self.detail}"


def find_leaks(
    datasets: Sequence[Dataset],
    deny: DenyList,
    threads: int = 1,
    on_shard: Callable[[Dataset], Progress] | None = None,
) -> Iterator[Hit]:
    """Every hit, in the order of datasets and rows; of one sample at most one by its picture (name, then pixels, then
    hashes) and one by its question.

    Raises:
        DataError: a dataset is damaged.
        EnvironmentSetupError: imagehash is not installed.
    """
    for dataset in datasets:
        work = partial(_hits, dataset, deny)
        for hits in each_shard(dataset, work, threads, on_shard(dataset) if on_shard else None):
            yield from hits


def _hits(dataset: Dataset, deny: DenyList, samples: list[Sample]) -> list[Hit]:
    hits, known = [], {}
    for sample in samples:
        found = [_by_name(deny, sample) or _by_pictures(deny, sample.pictures, known), _by_text(deny, sample)]
        for code, entry, detail in filter(None, found):
            benchmark, item, variant = deny.owner(entry)
            detail = f"{detail}, {variant}" if variant else detail
            hits.append(Hit(dataset, sample.row, str(sample.record.get("key")), code, benchmark, item, detail))
    return hits


Found = tuple[str, int, str]


def _by_name(deny: DenyList, sample: Sample) -> Found | None:
    orig: dict[str, Any] = sample.record.get("orig") or {}
    further = [each.get("name") for each in orig.get("further_images") or ()]
    for path in (orig.get("group"), orig.get("image"), *further):
        name = picture_name(path) if isinstance(path, str) and path else None
        if name in deny.names:
            return "leak_id", deny.names[name], f"the name {name}"
    return None


def _by_pictures(deny: DenyList, pictures: Sequence[Picture], known: dict[str, Found | None]) -> Found | None:
    """The first of a sample's pictures that the list holds; if none is, the first that is near to one of the list."""
    for picture in pictures:
        if picture.sha256 in deny.sha256:
            return "leak_exact", deny.sha256[picture.sha256], "equal pixels"
    for picture in pictures:
        if picture.sha256 not in known:
            known[picture.sha256] = nearest(deny, picture)
        found = known[picture.sha256]
        if found is not None:
            return found
    return None


def nearest(deny: DenyList, picture: Picture) -> Found | None:
    """The nearest picture of the list, or part of one, if it is near enough."""
    frequency = np.bitwise_count(deny.frequency ^ np.uint64(picture.frequency))
    difference = picture.difference.view(np.uint64)
    may = np.flatnonzero(deny.is_whole | (frequency <= PART_FREQUENCY))
    bits = np.bitwise_count(deny.difference[may] ^ difference).sum(axis=1, dtype=np.int64)
    limits = np.where(deny.is_whole[may], WHOLE_FREQUENCY, PART_FREQUENCY)
    is_near = (frequency[may] <= limits) & (bits <= MOST_DIFFERENCE)
    is_near |= (deny.is_whole & deny.has_texture)[may] & (bits <= ALONE_DIFFERENCE)
    if not is_near.any():
        return None
    places = np.flatnonzero(is_near)
    best = places[np.argmin(bits[places])]
    entry = may[best]
    detail = f"{frequency[entry]} of 64 and {bits[best]} of 256 bits differ"
    return "leak_picture", int(deny.pictures[entry]), detail


def _by_text(deny: DenyList, sample: Sample) -> Found | None:
    text = question_text(sample.record)
    entry = deny.texts.get(text_hash(text))
    if entry is not None:
        return "leak_text", entry, "the same question"
    hashes = ngram_hashes(text)
    first, last = (np.searchsorted(deny.ngrams, hashes, side) for side in ("left", "right"))
    if not (last > first).any():
        return None
    places = np.concatenate([np.arange(a, b) for a, b in zip(first.tolist(), last.tolist(), strict=True)])
    counts = np.bincount(deny.ngram_question[places], minlength=len(deny.ngram_counts))
    shares = counts / deny.ngram_counts
    best = int(np.argmax(shares))
    if shares[best] < NGRAM_SHARE:
        return None
    detail = f"{counts[best]} of its {deny.ngram_counts[best]} sequences of 8 words"
    return "leak_text", int(deny.ngram_entry[best]), detail
