"""Questions compared: in a plain form, by the words in a row that they share, and by MinHash."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from pokevla.data.card.texts import plain_form
from pokevla.errors import EnvironmentSetupError

SHINGLE = 3
"""Words in a row that MinHash compares questions by."""
BANDS, BAND_ROWS = 8, 8
"""Of 64 hash values. Questions that share 90 % of their shingles agree in one band with probability 0.99, those that
share half of them with probability 0.03 (Leskovec et al., Mining of Massive Datasets, 3.4)."""
SIMILAR = 0.9
"""Share of common shingles from which questions are nearly equal. Ours: one word more or less in a long question, while
`left` for `right` in a short one is another question."""
SHORTEST = 9
"""Shingles from which another text can share 90 % of all: with one more, 9 of 10. Shorter ones need no MinHash."""
NGRAM = 8
_FORM = re.compile(r"\s*(?:<image>|\b(?:Your answer should|Reply with|Answer with)\b.*$)\s*", re.DOTALL)
"""The mark of the image, and the request for a form of the answer: RoboPoint's, ours (`REPLY_WITH`), and Cambrian's."""


def question_text(record: Mapping[str, Any]) -> str:
    """All questions of a record in plain form (no case, no punctuation), without the request for a form."""
    questions = [record["question"], *(turn[0] for turn in record.get("further_turns") or ())]
    return " ".join(plain_question(question) for question in questions)


def answer_text(record: Mapping[str, Any]) -> str:
    """All answers of a record, in lower case and with single spaces. Punctuation is kept: it divides numbers."""
    answers = [record["answer"], *(turn[1] for turn in record.get("further_turns") or ())]
    return "\n".join(" ".join(answer.casefold().split()) for answer in answers)


def plain_question(question: str) -> str:
    """One question in plain form, without the request for a form of the answer."""
    return plain_form(_FORM.sub(" ", question))


def text_hash(*texts: str) -> int:
    """64 bits of some texts."""
    return xxhash.xxh3_64_intdigest("\0".join(texts).encode(errors="surrogatepass"))


def shingles(plain: str, size: int = SHINGLE) -> set[bytes]:
    """Every `size` words in a row of a plain text; the whole text if it is shorter."""
    words = plain.split()
    count = max(1, len(words) - size + 1)
    return {" ".join(words[place : place + size]).encode(errors="surrogatepass") for place in range(count)}


def similarity(one: str, other: str) -> float:
    """Share of the shingles of two plain texts that both have (Jaccard)."""
    first, second = shingles(one), shingles(other)
    return len(first & second) / len(first | second)


def ngram_hashes(plain: str) -> np.ndarray:
    """(n,) uint64, ascending and distinct: hashes of every `NGRAM` words in a row; none of a shorter text."""
    if len(plain.split()) < NGRAM:
        return np.empty(0, np.uint64)
    return np.unique(np.array([xxhash.xxh3_64_intdigest(part) for part in shingles(plain, NGRAM)], np.uint64))


def band_hashes(plains: Sequence[str]) -> np.ndarray:
    """(n, BANDS) uint32: nearly equal plain texts agree in a column, nearly always.

    Raises:
        EnvironmentSetupError: datasketch is not installed.
    """
    try:
        from datasketch import MinHash
    except ImportError as error:
        raise EnvironmentSetupError(
            "Questions are compared with datasketch, which is not installed.",
            "Install it with: pip install 'pokevla[curation]'",
        ) from error
    parts = {plain: shingles(plain) for plain in plains}
    bands = {plain: [xxhash.xxh32_intdigest(plain.encode(errors="surrogatepass"))] * BANDS for plain in parts}
    long = [plain for plain in parts if len(parts[plain]) >= SHORTEST]
    made = MinHash.bulk(
        (sorted(parts[plain]) for plain in long),
        num_perm=BANDS * BAND_ROWS,
        seed=1,
        hashfunc=xxhash.xxh32_intdigest,
    )
    for plain, minhash in zip(long, made, strict=True):
        values = np.asarray(minhash.hashvalues).reshape(BANDS, BAND_ROWS)
        bands[plain] = [xxhash.xxh32_intdigest(band.tobytes()) for band in values]
    return np.array([bands[plain] for plain in plains], np.uint32).reshape(-1, BANDS)
