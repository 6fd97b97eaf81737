"""How different the questions are, by 64-bit hashes: two of 2.4 million differing ones are taken for equal with a
probability of 2e-7."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash


@dataclass(frozen=True)
class Diversity:
    """How different the questions of some samples are."""

    samples: int
    distinct: int
    """Different questions."""
    top: int
    """Samples with the most frequent question."""
    first: int
    """Place of the first of these among the samples; -1 if there are none."""
    entropy: float
    """Of the first two words, in bits: with equally frequent beginnings, two to this power is their number."""

    @property
    def share_distinct(self) -> float:
        """Different questions per sample; 0 without samples."""
        return self.distinct / self.samples if self.samples else 0.0

    @property
    def share_top(self) -> float:
        """Share of the most frequent question; 0 without samples."""
        return self.top / self.samples if self.samples else 0.0


def text_hashes(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """(n,) uint64 hashes of texts, and of their first two words, whose case does not matter."""
    encoded = texts.dictionary_encode()
    plain = [text or "" for text in encoded.dictionary.to_pylist()]
    whole = np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in plain], dtype=np.uint64)
    heads = np.array([xxhash.xxh3_64_intdigest(_head(text).encode()) for text in plain], dtype=np.uint64)
    places = encoded.indices.to_numpy(zero_copy_only=False)
    return whole[places], heads[places]


def _head(text: str) -> str:
    return " ".join(text.split(maxsplit=2)[:2]).casefold()


def measure_diversity(questions: np.ndarray, heads: np.ndarray) -> Diversity:
    """Diversity of samples, from the hashes of `text_hashes` (n,). Of equally frequent questions the first is `top`."""
    if not len(questions):
        return Diversity(0, 0, 0, -1, 0.0)
    _, firsts, counts = np.unique(questions, return_index=True, return_counts=True)
    top = int(counts.max())
    beginnings = np.unique(heads, return_counts=True)[1] / len(heads)
    entropy = float(-(beginnings * np.log2(beginnings)).sum())
    return Diversity(len(questions), len(counts), top, int(firsts[counts == top].min()), entropy + 0.0)
