"""The tokenised texts of questions and answers, by dataset and row."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from pokevla.data.batch import IGNORED_LABEL
from pokevla.data.loading.packing import TokenCounts
from pokevla.data.prompts import EncodedExample, encode_conversation, vlm_conversation
from pokevla.data.tables.rows import SampleRows
from pokevla.recipe.sections import DataConfig

CACHED_EXAMPLES = 512
"""Tokenised samples kept in memory: packing counts those of a global batch before some of them are made."""


class QuestionTexts:
    """All turns of the samples of VLM datasets. Thread-safe."""

    def __init__(self, tables: Sequence[SampleRows], tokenizer: Any, config: DataConfig) -> None:
        self._tables, self._tokenizer, self._config = tables, tokenizer, config
        self._lock = threading.Lock()
        self.encoded = lru_cache(maxsize=CACHED_EXAMPLES)(self._encode)
        """(dataset, row) -> ids and labels of all turns."""

    def _encode(self, dataset: int, row: int) -> EncodedExample:
        table, config = self._tables[dataset], self._config
        question, answer = table.text("question", row), table.text("answer", row)
        turns = vlm_conversation(question, answer, table.turns(row), config.system_prompt)
        with self._lock:  # fast tokenizers borrow their state mutably while encoding
            return encode_conversation(self._tokenizer, turns, config.max_text_tokens)

    def characters(self, datasets: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(n,) characters of the questions and answers of samples, each argument (n,) int64."""
        lengths = np.zeros(len(rows), dtype=np.int64)
        for dataset in np.unique(datasets).tolist():
            places = np.flatnonzero(datasets == dataset)
            table, chosen = self._tables[dataset], rows[places]
            lengths[places] = table.text_lengths("question", chosen) + table.text_lengths("answer", chosen)
            lengths[places] += table.turn_lengths(chosen)
        return lengths

    def has_image(self, dataset: int, row: int) -> bool:
        """Whether a sample has an image. One of text alone has width 0 in the table, and no member `jpg`."""
        table = self._tables[dataset]
        return not table.has("width") or table.number("width", row) > 0

    def token_counts(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> TokenCounts:
        """Tokens of samples, each argument (n,) int64, with `num_vision` tokens of an image. Tokenises their texts."""
        pairs = list(zip(datasets.tolist(), rows.tolist(), strict=True))
        encoded = [self.encoded(dataset, row) for dataset, row in pairs]
        images = np.array([self.has_image(dataset, row) for dataset, row in pairs])
        texts = np.array([len(each.ids) for each in encoded], dtype=np.int64)
        trained = np.array([len(each.labels) - each.labels.count(IGNORED_LABEL) for each in encoded], dtype=np.int64)
        return TokenCounts(texts + num_vision * images, trained)
