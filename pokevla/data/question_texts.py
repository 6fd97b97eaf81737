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

CHARACTERS_PER_TOKEN = 4
"""Of English text, about: to compare images with texts that are not tokenised. Ours."""


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

    def characters(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> np.ndarray:
        """(n,) characters of the questions and answers of samples, each argument (n,) int64. Each image beyond the
        first counts as `num_vision` tokens of CHARACTERS_PER_TOKEN."""
        lengths = np.zeros(len(rows), dtype=np.int64)
        for dataset in np.unique(datasets).tolist():
            places = np.flatnonzero(datasets == dataset)
            table, chosen = self._tables[dataset], rows[places]
            lengths[places] = table.text_lengths("question", chosen) + table.text_lengths("answer", chosen)
            lengths[places] += table.turn_lengths(chosen)
            if table.has("num_images"):
                further = [max(0, self.num_images(dataset, row) - 1) for row in chosen.tolist()]
                lengths[places] += CHARACTERS_PER_TOKEN * num_vision * np.array(further, dtype=np.int64)
        return lengths

    def num_images(self, dataset: int, row: int) -> int:
        """Images of a sample. Without the column of that name it has one, or with width 0 none."""
        table = self._tables[dataset]
        if table.has("num_images"):
            return table.number("num_images", row)
        return int(not table.has("width") or table.number("width", row) > 0)

    def token_counts(self, datasets: np.ndarray, rows: np.ndarray, num_vision: int) -> TokenCounts:
        """Tokens of samples, each argument (n,) int64, `num_vision` of each image. Tokenises their texts."""
        pairs = list(zip(datasets.tolist(), rows.tolist(), strict=True))
        encoded = [self.encoded(dataset, row) for dataset, row in pairs]
        images = np.array([self.num_images(dataset, row) for dataset, row in pairs], dtype=np.int64)
        texts = np.array([len(each.ids) for each in encoded], dtype=np.int64)
        trained = np.array([len(each.labels) - each.labels.count(IGNORED_LABEL) for each in encoded], dtype=np.int64)
        return TokenCounts(texts + num_vision * images, trained)
