"""Phrasings of a language model, kept in a file for each model and version of the prompt.

FOLDER/NAME-0123456789ab.json       complete or absent; several processes add to it
FOLDER/NAME-0123456789ab.lock

An entry never changes, so processes that read it after it was written agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from pokevla.data.curation.rewriting.checks import REFUSED
from pokevla.data.curation.rewriting.prompt import PROMPT_VERSION, Label, Phrasings
from pokevla.errors import DataError
from pokevla.files.locks import advisory_lock
from pokevla.files.texts import read_json_object, write_json

_FORMAT = 1
_LOCK_WAIT_S = 120.0
_MAX_BYTES = 1 << 30


class PhrasingStore:
    """The file of one model."""

    def __init__(self, folder: Path, model: Mapping[str, Any]) -> None:
        """`model`: what its replies depend on, with its short name under `name`."""
        self._identity = {"format": _FORMAT, "prompt": PROMPT_VERSION, "model": dict(model)}
        digest = xxhash.xxh3_128_hexdigest(repr(sorted(_flat(self._identity))).encode())[:12]
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", str(model["name"])).strip("-.")[:60] or "model"
        self.path = folder / f"{slug}-{digest}.json"
        self._state: tuple[int, int] | None = None
        self._entries: dict[Label, Phrasings] = {}

    def entries(self) -> Mapping[Label, Phrasings]:
        """All that is stored, read again if another process has added to it. Raises DataError: the file is damaged."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return {}
        state = (status.st_ino, status.st_mtime_ns)
        if state != self._state:
            self._entries, self._state = self._read(), state
        return self._entries

    def add(self, new: Mapping[Label, Phrasings]) -> None:
        """Store entries; those of labels that have one are dropped.

        Raises:
            DataError: the file is damaged, cannot be written, or another process holds it for too long.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_suffix(".lock")
        with advisory_lock(
            lock, busy=f"{self.path} is in use.", remedy="Repeat the command.", kind=DataError, wait_s=_LOCK_WAIT_S
        ):
            merged = {**new, **self.entries()}
            rows = [
                [label.verb, label.noun, list(each.sentences), dict(each.refused)]
                for label, each in sorted(merged.items(), key=lambda item: (item[0].verb, item[0].noun))
            ]
            write_json(self.path, {**self._identity, "phrasings": rows}, indent=None)

    def _read(self) -> dict[Label, Phrasings]:
        remedy = f"Remove {self.path}; the model is asked again."
        content = read_json_object(self.path, max_bytes=_MAX_BYTES, remedy=remedy)
        entries: dict[Label, Phrasings] = {}
        try:
            if {name: content.get(name) for name in self._identity} != self._identity:
                raise ValueError("it is of another model")
            for verb, noun, sentences, refused in content["phrasings"]:
                texts = [verb, noun, *sentences]
                if not all(isinstance(text, str) for text in texts) or not set(refused) <= REFUSED.keys():
                    raise ValueError(f"the entry of {verb}, {noun}")
                entries[Label(verb, noun)] = Phrasings(tuple(sentences), tuple(sorted(refused.items())))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{self.path} is damaged ({error}).", remedy) from error
        return entries


def digest_of(entries: Mapping[Label, Phrasings], labels: list[Label]) -> str:
    """A digest of the phrasings of `labels`, in their order."""
    digest = xxhash.xxh3_128()
    for label in labels:
        digest.update(repr((label.verb, label.noun, entries[label].sentences, entries[label].reason)).encode())
    return digest.hexdigest()


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        pairs += _flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, repr(value))]
    return pairs
