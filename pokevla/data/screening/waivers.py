"""Hits that a person has looked at, and accepts for a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pokevla.data.curation.rules import SCREENED
from pokevla.data.screening.leakage import Hit
from pokevla.errors import DataError
from pokevla.files.texts import read_json

_FIELDS = ("code", "benchmark", "item", "key")
REMEDY = (
    'Write a JSON list of objects such as {"code": "leak_text", "benchmark": "cvbench", "item": "17", "reason": "..."}.'
)


@dataclass(frozen=True)
class Waiver:
    """Accepts the hits that have all of its values."""

    code: str
    benchmark: str
    reason: str
    item: str | None = None
    key: str | None = None

    def covers(self, hit: Hit) -> bool:
        """Whether it accepts this hit."""
        names = ("item", "key")
        others = all(getattr(self, name) in (None, getattr(hit, name)) for name in names)
        return others and (self.code, self.benchmark) == (hit.code, hit.benchmark)


def read_waivers(path: Path) -> list[Waiver]:
    """The waivers in a JSON file: a list of objects with `code`, `benchmark`, `reason`, and `item` (of the benchmark),
    `key` (of the sample) or both.

    Raises:
        DataError: the file is missing or damaged, or a waiver has no reason, or would cover a whole benchmark.
    """
    content = read_json(path, remedy=REMEDY)
    if not isinstance(content, list):
        raise DataError(f"{path} holds no list of waivers.", REMEDY)
    waivers = []
    for number, entry in enumerate(content, start=1):
        where = f"{path}: waiver {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{where} is no object.", REMEDY)
        if unknown := sorted(entry.keys() - {*_FIELDS, "reason"}):
            raise DataError(f"{where} has the unknown field {unknown[0]!r}.", REMEDY)
        for name in ("code", "benchmark", "reason"):
            if not isinstance(entry.get(name), str) or not entry[name].strip():
                raise DataError(f"{where} has no {name}.", REMEDY)
        if entry["code"] not in SCREENED:
            raise DataError(f"{where}: there is no code {entry['code']!r}.", REMEDY)
        if not any(isinstance(entry.get(name), str) for name in ("item", "key")):
            raise DataError(f"{where} names neither item nor key: it would cover the whole benchmark.", REMEDY)
        waivers.append(Waiver(**entry))
    return waivers


def waiver_of(hit: Hit, waivers: Iterable[Waiver]) -> Waiver | None:
    """The first waiver that covers a hit; None if there is none."""
    return next((waiver for waiver in waivers if waiver.covers(hit)), None)
