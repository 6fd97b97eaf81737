"""The deny list: names, checksums and hashes of the pictures of benchmarks, and the words of their questions.

A parquet file with a row for each. `kind` says what `value` holds: `name` (the end of a path without its extension),
`sha256` (32 bytes), `picture` (8 bytes of `frequency_hash`, 32 of `picture_hash`, of the variant `detail`), `text` (8
bytes, hash of a whole question), `ngram` (8 bytes, hash of 8 words in a row).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pokevla.data.images.picture_hash import frequency_hash, picture_hash, pixels_sha256
from pokevla.data.screening.questions import ngram_hashes, plain_question, text_hash
from pokevla.data.screening.variants import WHOLE, variants
from pokevla.errors import DataError
from pokevla.files.writing import atomic_file

VERSION = 1
SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("benchmark", pa.string()),
        ("item", pa.string()),
        ("detail", pa.string()),
        ("value", pa.binary()),
    ]
)
FEWEST_DIGITS = 8
"""Digits of a name that may tell a picture: `000000004711` and `ADE_val_00000001` do, `image_007` does not."""
SHORTEST_TEXT = 6
"""Words of a question that is compared as a whole."""
FEWEST_EDGES = 48
"""Bits of `picture_hash` that are set, and that are not, in a picture with texture. A small thing on a plain ground
sets 6 of 256, so all such pictures are near to each other. Photographs have 75 to 170."""
MOST_SHARED = 2
"""Questions of the list in which 8 words in a row may stand. What more of them have in common is the wording of the
benchmark, which a training set may use."""
_META = b"pokevla_deny_list"
_COCO = ("coco_train2014_", "coco_val2014_", "coco_train2017_", "coco_val2017_")
MAKE_AGAIN = "Make the list again with: pokevla data denylist"


@dataclass(frozen=True)
class DenyItem:
    """One question of a benchmark, or one picture."""

    benchmark: str
    item: str
    """Its id."""
    name: str
    """Path or name of its picture."""
    picture: Image.Image
    """RGB."""
    question: str = ""
    """Empty for a picture alone."""
    options: str = ""
    """Those that the question is asked with."""


def picture_name(path: str) -> str | None:
    """What of a path tells the picture, in lower case: its last part without extension, and without the year of COCO.
    None if it has too few digits."""
    stem = PurePosixPath(path.replace("\\", "/")).stem.casefold()
    for prefix in _COCO:
        stem = stem.removeprefix(prefix)
    return stem if sum(character.isdigit() for character in stem) >= FEWEST_DIGITS else None


def write_deny_list(out: Path, items: Iterable[DenyItem], *, overwrite: bool) -> dict[str, Any]:
    """Write a deny list; returns how many `questions` and `pictures` each benchmark has, and `untold` questions:
    too short, or of the benchmark's wording alone.

    Raises:
        DataError: `out` exists and may not be replaced (with `overwrite`: it is no deny list), or writing failed.
    """
    if out.exists():
        if not overwrite:
            raise DataError(f"{out} already exists.", "Choose another name, or pass --overwrite.")
        DenyList.read(out)
    rows, questions, counts, seen = [], [], {}, set()
    for item in items:
        its = counts.setdefault(item.benchmark, {"questions": 0, "pictures": 0, "untold": 0})
        sha256 = pixels_sha256(item.picture)
        if (item.benchmark, sha256) not in seen:
            seen.add((item.benchmark, sha256))
            its["pictures"] += 1
            rows += _picture_rows(item, sha256)
        if name := picture_name(item.name):
            rows.append(_row("name", item, "", name.encode(errors="surrogatepass")))
        if item.question:
            its["questions"] += 1
            questions.append(item)
    rows += _text_rows(questions, counts)
    table = pa.Table.from_pylist(rows, SCHEMA).group_by(SCHEMA.names, use_threads=False).aggregate([])
    meta = {"version": VERSION, "benchmarks": counts}
    with atomic_file(out) as file:
        pq.write_table(table.replace_schema_metadata({_META: json.dumps(meta)}), file, write_page_checksum=True)
    return counts


def _row(kind: str, item: DenyItem, detail: str, value: bytes) -> dict[str, Any]:
    return {"kind": kind, "benchmark": item.benchmark, "item": item.item, "detail": detail, "value": value}


def _picture_rows(item: DenyItem, sha256: str) -> Iterator[dict[str, Any]]:
    yield _row("sha256", item, "", bytes.fromhex(sha256))
    for name, picture in variants(item.picture):
        value = frequency_hash(picture).to_bytes(8, "little") + picture_hash(picture).tobytes()
        yield _row("picture", item, name, value)


def _text_rows(items: list[DenyItem], counts: dict[str, dict[str, int]]) -> Iterator[dict[str, Any]]:
    """Whole questions with their options, and what no other question has in common with them: of the question alone, or
    if that has nothing of its own ("How many chairs are there?") with its options."""
    texts = [(item, plain_question(item.question), plain_question(f"{item.question} {item.options}")) for item in items]
    ngrams = {text: ngram_hashes(text) for _, *both in texts for text in both}
    of_alone, of_whole = (
        Counter(value for text in set(column) for value in ngrams[text].tolist())
        for column in ([alone for _, alone, _ in texts], [whole for *_, whole in texts])
    )
    for item, alone, whole in texts:
        own = [value for value in ngrams[alone].tolist() if of_alone[value] <= MOST_SHARED]
        own = own or [value for value in ngrams[whole].tolist() if of_whole[value] <= MOST_SHARED]
        is_compared = len(whole.split()) >= SHORTEST_TEXT
        if is_compared:
            yield _row("text", item, "", text_hash(whole).to_bytes(8, "little"))
        for value in own:
            yield _row("ngram", item, "", value.to_bytes(8, "little"))
        counts[item.benchmark]["untold"] += not own and not is_compared


class DenyList:
    """A deny list in memory: about 2 kB for each picture."""

    def __init__(self, table: pa.Table, benchmarks: dict[str, Any]) -> None:
        self.benchmarks = benchmarks
        """Counts of each benchmark, as `write_deny_list` returned them."""
        kinds = table["kind"].to_numpy()
        self._owners = table.select(["benchmark", "item", "detail"])
        values = table["value"].to_pylist()
        places = {kind: np.flatnonzero(kinds == kind) for kind in ("name", "sha256", "picture", "text", "ngram")}
        self.names = {values[i].decode(errors="surrogatepass"): int(i) for i in places["name"][::-1]}
        self.sha256 = {values[i].hex(): int(i) for i in places["sha256"][::-1]}
        self.texts = {int.from_bytes(values[i], "little"): int(i) for i in places["text"][::-1]}
        content = np.frombuffer(b"".join(values[i] for i in places["picture"]), np.uint8).reshape(-1, 40)
        self.pictures = places["picture"]
        """(p,) entries of the pictures."""
        self.frequency = content[:, :8].copy().view("<u8")[:, 0]
        """(p,) uint64."""
        self.difference = content[:, 8:].copy().view("<u8")
        """(p, 4) uint64."""
        self.is_whole = np.isin(table["detail"].to_numpy()[self.pictures], WHOLE)
        """(p,) bool: the variant holds all of the picture."""
        edges = np.bitwise_count(self.difference).sum(axis=1, dtype=np.int64)
        self.has_texture = (edges >= FEWEST_EDGES) & (edges <= 256 - FEWEST_EDGES)
        """(p,) bool: `difference` alone tells the picture."""
        hashes = np.array([int.from_bytes(values[i], "little") for i in places["ngram"]], np.uint64)
        order = np.argsort(hashes, kind="stable")
        self.ngrams = hashes[order]
        """(g,) uint64 ascending."""
        questions = [(table["benchmark"][i].as_py(), table["item"][i].as_py()) for i in places["ngram"]]
        numbers = {question: number for number, question in enumerate(dict.fromkeys(questions))}
        self.ngram_question = np.array([numbers[question] for question in questions], np.int64)[order]
        """(g,) number of the question of each."""
        self.ngram_counts = np.bincount(self.ngram_question, minlength=len(numbers))
        """(q,) 8-word sequences of each question."""
        self.ngram_entry = np.zeros(len(numbers), np.int64)
        """(q,) an entry of each question."""
        self.ngram_entry[self.ngram_question] = places["ngram"][order]

    def owner(self, entry: int) -> tuple[str, str, str]:
        """(benchmark, item, detail) of an entry."""
        benchmark, item, detail = (self._owners[name][entry].as_py() for name in ("benchmark", "item", "detail"))
        return benchmark, item, detail

    @classmethod
    def read(cls, path: Path) -> DenyList:
        """Read a list. Raises DataError if it is missing or damaged, of another version, or empty."""
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                meta = json.loads((file.schema_arrow.metadata or {})[_META])
                if meta["version"] != VERSION:
                    raise DataError(f"{path} has version {meta['version']}, this code reads {VERSION}.", MAKE_AGAIN)
                table = file.read(use_threads=False)
            if table.schema.remove_metadata() != SCHEMA:
                raise ValueError("it has other columns")
            loaded = cls(table, meta["benchmarks"])
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{path} cannot be read as a deny list ({reason}).", MAKE_AGAIN) from error
        if not len(loaded.pictures):
            raise DataError(f"{path} holds no pictures: nothing would be found.", MAKE_AGAIN)
        return loaded
