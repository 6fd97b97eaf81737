"""Texts counted, and those that differ only in their spelling."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

MAX_TEXTS = 100_000
"""Distinct texts that are counted. Further ones are counted together."""
_LISTED = 200
_VARIANTS = 50
_PUNCTUATION = re.compile(r"[^\w\s]+")


class TextCounts:
    """How often each text occurs, with a bound on their number."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._others = 0

    def add(self, texts: Iterable[str | None]) -> None:
        """Count some texts; None counts as empty."""
        for text in texts:
            text = text or ""
            if text in self._counts or len(self._counts) < MAX_TEXTS:
                self._counts[text] += 1
            else:
                self._others += 1

    def to_dict(self) -> dict[str, Any]:
        """`distinct` texts, the most frequent ones with counts (`listed`), how many occurrences were not told apart
        (`others`), and `variants`: groups of texts that are equal but for case, spaces and punctuation."""
        return {
            "distinct": len(self._counts),
            "listed": [{"text": text, "count": count} for text, count in self._counts.most_common(_LISTED)],
            "others": self._others,
            "empty": self._counts.get("", 0),
            "variants": self._variants(),
        }

    def _variants(self) -> list[list[dict[str, Any]]]:
        groups: dict[str, list[str]] = {}
        for text in self._counts:
            groups.setdefault(plain_form(text), []).append(text)
        several = [sorted(group, key=lambda text: -self._counts[text]) for group in groups.values() if len(group) > 1]
        several.sort(key=lambda group: -sum(self._counts[text] for text in group))
        return [[{"text": text, "count": self._counts[text]} for text in group] for group in several[:_VARIANTS]]


def plain_form(text: str) -> str:
    """A text without the differences that mean nothing: case, width of characters, spaces, punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_PUNCTUATION.sub(" ", folded).split())
