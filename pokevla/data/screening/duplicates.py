"""Samples that repeat others, and samples that contradict each other, in one or more datasets of questions.

A sample is kept as 56 bytes in arrays, each distinct picture as 48, and each distinct list of several pictures as 40;
groups are found by sorting. Texts are read again only for the few samples that might be nearly equal or contradict each
other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pokevla.data.dataset import Dataset
from pokevla.data.reader import ShardReader
from pokevla.data.records import MAX_IMAGES
from pokevla.data.screening.contradictions import contradict
from pokevla.data.screening.near_pictures import leaders, near_pairs
from pokevla.data.screening.questions import (
    BANDS,
    SIMILAR,
    answer_text,
    band_hashes,
    question_text,
    similarity,
    text_hash,
)
from pokevla.data.screening.scanning import Progress, Sample, each_shard, read_record

ROW = np.dtype([("image", "<u8"), ("question", "<u8"), ("answer", "<u8"), ("bands", "<u4", (BANDS,))])
"""A sample: `image` (0 without one), hashes of question and answer, `band_hashes`. `image` is the first bits of the
sha256 of its picture, or of a sha256 over those of all its pictures in order."""
PICTURE = np.dtype([("image", "<u8"), ("frequency", "<u8"), ("difference", "u1", (32,))])
SET = np.dtype([("image", "<u8"), ("pictures", "<u8", (MAX_IMAGES,))])
"""Several pictures of one sample: `image` as in ROW, and `image` as in PICTURE of each, in order; then 0."""
CODES = ("", "conflict", "duplicate", "near_question", "near_picture")
"""Reason codes by number; 0: the sample stays."""
MOST_ANSWERS = 32
"""Answers to one question about one picture that are compared with each other: the first ones."""


@dataclass
class Duplicates:
    """What was found. Samples of all datasets are numbered through."""

    datasets: Sequence[Dataset]
    starts: np.ndarray
    """(D+1,) number of the first sample of each dataset, and of all."""
    code: np.ndarray
    """(n,) uint8 number in CODES."""
    because: np.ndarray
    """(n,) int64 number of the sample that is kept, or contradicts it; -1 for a sample that stays."""
    figures: dict[str, int] = field(default_factory=dict)

    def place(self, number: int) -> tuple[Dataset, int]:
        """Dataset and row of a sample."""
        which = int(np.searchsorted(self.starts, number, side="right")) - 1
        return self.datasets[which], number - int(self.starts[which])

    def counts(self, which: int | None = None) -> dict[str, int]:
        """Reason code -> samples left out, of all datasets or of number `which`."""
        start, stop = (0, len(self.code)) if which is None else self.starts[which : which + 2]
        found = np.bincount(self.code[start:stop], minlength=len(CODES))
        return {name: int(found[number]) for number, name in enumerate(CODES) if number}


def find_duplicates(
    datasets: Sequence[Dataset], threads: int = 1, on_shard: Callable[[Dataset], Progress] | None = None
) -> Duplicates:
    """Compare all samples of some datasets. The first one of equal samples is kept, in the order of datasets and rows.

    Args:
        on_shard: dataset -> called with (done, total) shards of it.

    Raises:
        DataError: a dataset is damaged.
        EnvironmentSetupError: imagehash or datasketch is not installed.
    """
    rows, pictures, sets = _scanned(datasets, threads, on_shard)
    starts = np.cumsum([0, *(len(dataset.rows) for dataset in datasets)])
    found = Duplicates(datasets, starts, np.zeros(len(rows), np.uint8), np.full(len(rows), -1, np.int64))
    pictures, sets = _distinct(pictures), _distinct(sets)
    found.figures = {"samples": len(rows), "pictures": len(pictures)}
    readers = _Records(found)
    try:
        _mark_equal(rows, found, readers)
        _mark_near_questions(rows, found, readers)
        _mark_near_pictures(rows, pictures, sets, found)
    finally:
        readers.close()
    return found


def _scanned(
    datasets: Sequence[Dataset], threads: int, on_shard: Callable[[Dataset], Progress] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, pictures, sets = [np.empty(0, ROW)], [np.empty(0, PICTURE)], [np.empty(0, SET)]
    for dataset in datasets:
        for part, shown, several in each_shard(dataset, _measured, threads, on_shard(dataset) if on_shard else None):
            rows.append(part)
            pictures.append(shown)
            sets.append(several)
    return np.concatenate(rows), np.concatenate(pictures), np.concatenate(sets)


def _distinct(entries: np.ndarray) -> np.ndarray:
    """The first entry of each `image`, in order."""
    _, first = np.unique(entries["image"], return_index=True)
    return entries[np.sort(first)]


def _measured(samples: list[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, pictures, sets = np.zeros(len(samples), ROW), {}, {}
    texts = [question_text(sample.record) for sample in samples]
    rows["bands"] = band_hashes(texts)
    for place, (sample, text) in enumerate(zip(samples, texts, strict=True)):
        numbers = [int(picture.sha256[:16], 16) or 1 for picture in sample.pictures]
        for number, picture in zip(numbers, sample.pictures, strict=True):
            pictures[number] = (number, picture.frequency, picture.difference)
        image = numbers[0] if numbers else 0
        if len(numbers) > 1:
            joined = "".join(picture.sha256 for picture in sample.pictures)
            image = int(hashlib.sha256(joined.encode()).hexdigest()[:16], 16) or 1
            sets[image] = (image, [*numbers, *[0] * (MAX_IMAGES - len(numbers))])
        kind = str(sample.record.get("answer_kind"))
        rows["image"][place] = image
        rows["question"][place] = text_hash(kind, text)
        rows["answer"][place] = text_hash(kind, answer_text(sample.record))
    return rows, np.array(list(pictures.values()), PICTURE), np.array(list(sets.values()), SET)


class _Records:
    """Records of single samples, read again."""

    def __init__(self, found: Duplicates) -> None:
        self._found = found
        self._readers = {dataset.fingerprint: ShardReader(dataset) for dataset in found.datasets}

    def read(self, number: int) -> dict[str, Any]:
        """The JSON member of a sample."""
        dataset, row = self._found.place(number)
        return read_record(self._readers[dataset.fingerprint].read(row), dataset.rows.text("key", row))

    def close(self) -> None:
        """Close all files."""
        for reader in self._readers.values():
            reader.close()


def _groups(*columns: np.ndarray, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Ascending `numbers` of the samples that agree in all `columns`, for each group of two or more."""
    order = np.lexsort((numbers, *reversed(columns)))
    same = np.ones(max(0, len(order) - 1), bool)
    for column in columns:
        ranked = column[order]
        same &= ranked[1:] == ranked[:-1]
    starts = np.flatnonzero(np.append(True, ~same)) if len(order) else np.empty(0, np.int64)
    sizes = np.diff(np.append(starts, len(order)))
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        yield numbers[order[start : start + size]]


def _mark(found: Duplicates, code: str, numbers: np.ndarray, because: int) -> None:
    found.code[numbers] = CODES.index(code)
    found.because[numbers] = because


def _mark_equal(rows: np.ndarray, found: Duplicates, records: _Records) -> None:
    """Equal image, question and answer: the first is kept. Equal image and question, answers that contradict each
    other: none is."""
    several = 0
    for group in _groups(rows["image"], rows["question"], numbers=np.arange(len(rows))):
        answers, first, which = np.unique(rows["answer"][group], return_index=True, return_inverse=True)
        several += len(answers) > 1
        against = _against(group[np.sort(first)], records) if len(answers) > 1 and rows["image"][group[0]] else None
        if against is not None:
            _mark(found, "conflict", group, against[0])
            found.because[against[0]] = against[1]
            continue
        for number, kept in enumerate(group[first].tolist()):
            others = group[which == number]
            _mark(found, "duplicate", others[others != kept], kept)
    found.figures["questions_with_several_answers"] = several


def _against(numbers: np.ndarray, records: _Records) -> tuple[int, int] | None:
    """The first two of some samples that contradict each other."""
    read = [(number, records.read(number)) for number in numbers[:MOST_ANSWERS].tolist()]
    for place, (one, record) in enumerate(read):
        for other, against in read[place + 1 :]:
            if contradict(record, against):
                return one, other
    return None


def _mark_near_questions(rows: np.ndarray, found: Duplicates, records: _Records) -> None:
    """Equal image and answer, nearly equal question."""
    texts: dict[int, str] = {}
    for band in range(BANDS):
        numbers = np.flatnonzero(found.code == 0)
        left = rows[numbers]
        for group in _groups(left["image"], left["answer"], left["bands"][:, band], numbers=numbers):
            kept = int(group[0])
            texts.clear()  # those of one group at a time
            for number in group[1:].tolist():
                for each in (kept, number):
                    if each not in texts:
                        texts[each] = question_text(records.read(each))
                if similarity(texts[kept], texts[number]) >= SIMILAR:
                    _mark(found, "near_question", np.array([number]), kept)


def _mark_near_pictures(rows: np.ndarray, pictures: np.ndarray, sets: np.ndarray, found: Duplicates) -> None:
    """Nearly equal image (of several: each), equal question and answer."""
    pairs = near_pairs(pictures["frequency"], pictures["difference"])
    found.figures["near_pairs_of_pictures"] = len(pairs)
    lead = leaders(pairs, len(pictures))
    numbers = np.flatnonzero((found.code == 0) & (rows["image"] != 0))
    images = np.concatenate([pictures["image"], sets["image"]])
    leads = np.concatenate([lead, len(pictures) + _leads_of_sets(sets, pictures["image"], lead)])
    order = np.argsort(images)
    place = order[np.searchsorted(images[order], rows["image"][numbers])]
    questions, answers = rows["question"][numbers], rows["answer"][numbers]
    for group in _groups(leads[place], questions, answers, numbers=numbers):
        _mark(found, "near_picture", group[1:], int(group[0]))


def _leads_of_sets(sets: np.ndarray, images: np.ndarray, lead: np.ndarray) -> np.ndarray:
    """(s,) int64: an equal number for sets whose pictures, in order, have equal leaders.

    Args:
        images: (p,) uint64 of all pictures.
        lead: (p,) int64 leader of each.
    """
    if not len(sets):
        return np.empty(0, np.int64)
    order = np.argsort(images)
    places = order[np.searchsorted(images[order], sets["pictures"]).clip(max=len(order) - 1)]
    leads = np.where(sets["pictures"] == 0, -1, lead[places])  # 0: no picture
    return np.unique(leads, axis=0, return_inverse=True)[1].reshape(-1)
