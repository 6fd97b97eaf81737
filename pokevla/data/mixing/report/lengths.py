"""How long questions and answers are: in characters and words, or in tokens of a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LONGEST = 1 << 18
"""Longer texts are counted as this long."""
_BINS = 40


@dataclass(frozen=True)
class Measure:
    """A unit of length, and how texts are counted in it."""

    name: str
    count: Callable[[pa.Array], np.ndarray]
    """Lengths (n,) int64 of texts (n,)."""


def characters(texts: pa.Array) -> np.ndarray:
    """(n,) int64 characters of each text."""
    return _whole(pc.call_function("utf8_length", [texts]))


def words(texts: pa.Array) -> np.ndarray:
    """(n,) int64 words of each text: what spaces separate."""
    trimmed = pc.call_function("utf8_trim_whitespace", [texts])
    pieces = _whole(pc.call_function("list_value_length", [pc.call_function("utf8_split_whitespace", [trimmed])]))
    return np.where(characters(trimmed) == 0, 0, pieces)


def tokens_of(tokenizer: Any) -> Measure:
    """Tokens of texts by a tokenizer of transformers, without those of the prompt around them."""

    def count(texts: pa.Array) -> np.ndarray:
        encoded = texts.dictionary_encode()
        ids = tokenizer(encoded.dictionary.to_pylist(), add_special_tokens=False)["input_ids"] if len(texts) else []
        return np.array([len(each) for each in ids], dtype=np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]

    return Measure("tokens", count)


WITHOUT_TOKENIZER = (Measure("words", words), Measure("characters", characters))


def _whole(numbers: Any) -> np.ndarray:
    return numbers.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)


class LengthCounts:
    """How many texts have each length."""

    def __init__(self) -> None:
        self._counts = np.zeros(1, dtype=np.int64)

    def add(self, lengths: np.ndarray) -> None:
        """Count lengths (n,) int64."""
        self._join(np.bincount(np.minimum(lengths, LONGEST), minlength=1))

    def join(self, other: LengthCounts) -> None:
        """Count what another one has counted."""
        self._join(other._counts)

    def _join(self, counts: np.ndarray) -> None:
        if len(counts) > len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(len(counts) - len(self._counts), dtype=np.int64)])
        self._counts[: len(counts)] += counts

    @property
    def total(self) -> int:
        """Sum of all lengths."""
        return int((self._counts * np.arange(len(self._counts))).sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain values: `texts`, `total`, `mean`, `median`, `q95`, `largest`, and a histogram up to about the longest
        percent, which is counted as `above`."""
        texts = int(self._counts.sum())
        if texts == 0:
            return {"texts": 0, "total": 0, "mean": 0.0, "median": 0, "q95": 0, "largest": 0,
                    "low": 0, "high": 1, "counts": [0], "below": 0, "above": 0}  # fmt: skip
        last = int(np.flatnonzero(self._counts)[-1])
        width = -(-(self._quantile(0.99) + 1) // _BINS)
        shown = self._counts[: min(_BINS * width, last + 1)]
        padded = np.concatenate([shown, np.zeros(-len(shown) % width, dtype=np.int64)])
        counts = padded.reshape(-1, width).sum(axis=1)
        return {
            "texts": texts, "total": self.total, "mean": self.total / texts,
            "median": self._quantile(0.5), "q95": self._quantile(0.95), "largest": last,
            "low": 0, "high": len(counts) * width, "counts": counts.tolist(), "below": 0,
            "above": texts - int(counts.sum()),
        }  # fmt: skip

    def _quantile(self, share: float) -> int:
        """The smallest length that at least this share of the texts do not exceed."""
        reached = np.cumsum(self._counts)
        return int(np.searchsorted(reached, share * reached[-1]))
