"""Asking a model for labels, and keeping what it said."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pokevla.data.curation.rewriting.checks import REFUSED
from pokevla.data.curation.rewriting.filling import BATCH, phrase_labels
from pokevla.data.curation.rewriting.prompt import Label, Phrasings
from pokevla.data.curation.rewriting.store import PhrasingStore, digest_of
from pokevla.errors import DataError

IDENTITY = {"name": "org/tiny model", "seed": 0}
LABELS = [Label("open", noun) for noun in ("box", "door", "drawer", "jar", "lid7", "oven", "tin")]


@dataclass
class Parrot:
    """Replies with the example of the request; `mute` nouns get no answer, `who` is said where it is given."""

    mute: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    who: str = ""

    @property
    def identity(self) -> Mapping[str, Any]:
        return IDENTITY

    def replies(self, requests: Sequence[str], system: str) -> list[str | None]:
        self.asked += requests
        return [None if any(f"the {m}." in r for m in self.mute) else self._reply(r) for r in requests]

    def _reply(self, request: str) -> str:
        noun = request.split("A picture shows the ")[1].split(".")[0]
        return f"Where {self.who} would you touch the {noun} to open it?\nOpen the {noun}."


def test_labels_are_asked_for_once_and_kept(tmp_path: Path) -> None:
    model, seen = Parrot(), []
    first = phrase_labels(model, PhrasingStore(tmp_path, IDENTITY), LABELS * 2, lambda *now: seen.append(now))
    assert list(first) == LABELS
    assert len(model.asked) == len(LABELS) - 1
    assert first[Label("open", "lid7")] == Phrasings((), (("label", 1),))
    assert first[LABELS[0]] == Phrasings(("Where  would you touch the box to open it?",), (("length", 1),))
    assert seen == [(1, 7), (7, 7)]
    again = phrase_labels(model, PhrasingStore(tmp_path, IDENTITY), LABELS)
    assert (again, len(model.asked)) == (first, len(LABELS) - 1)
    assert digest_of(again, LABELS) == digest_of(first, LABELS) != digest_of(first, LABELS[1:])


def test_other_models_have_other_files_and_seeds_too(tmp_path: Path) -> None:
    stores = [PhrasingStore(tmp_path, {"name": name, "seed": seed}) for name in ("a/b", "a-b") for seed in (0, 1)]
    assert len({store.path for store in stores}) == 4
    assert stores[0].path.name.startswith("a-b-")
    assert PhrasingStore(tmp_path, {"name": "..", "seed": 0}).path.parent == tmp_path


def test_single_silent_answers_are_kept_as_such_and_many_stop_the_command(tmp_path: Path) -> None:
    store = PhrasingStore(tmp_path, IDENTITY)
    made = phrase_labels(Parrot(mute=frozenset(["jar"])), store, LABELS)
    assert made[Label("open", "jar")].reason == "no_answer"
    other = PhrasingStore(tmp_path / "other", IDENTITY)
    mute = frozenset(["box", "door", "jar", "tin"])
    with pytest.raises(DataError, match="no answer to 4 of 6 requests") as caught:
        phrase_labels(Parrot(mute=mute), other, LABELS)
    assert "kept" in str(caught.value)
    assert {label.noun for label in other.entries()} == {"drawer", "oven"}


def _fill(folder: Path, who: str) -> tuple[str, int]:
    labels = [Label("open", f"box {chr(97 + n // 26)}{chr(97 + n % 26)}") for n in range(4 * BATCH)]
    made = phrase_labels(Parrot(who=who), PhrasingStore(folder, IDENTITY), labels)
    return digest_of(made, labels), len(made)


def test_processes_share_one_file_and_agree(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as processes:
        results = list(processes.map(partial(_fill, tmp_path), ["then", "now", "else"], timeout=300))
    assert len(set(results)) == 1
    assert results[0][1] == 4 * BATCH
    (file,) = tmp_path.glob("*.json")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".lock"]
    assert len(json.loads(file.read_text())["phrasings"]) == 4 * BATCH


def test_an_entry_never_changes(tmp_path: Path) -> None:
    one, other = PhrasingStore(tmp_path, IDENTITY), PhrasingStore(tmp_path, IDENTITY)
    one.add({LABELS[0]: Phrasings(("first",))})
    other.add({LABELS[0]: Phrasings(("second",)), LABELS[1]: Phrasings(())})
    expected = {LABELS[0]: Phrasings(("first",)), LABELS[1]: Phrasings(())}
    assert one.entries() == other.entries() == expected


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"phrasings": 3}', '{"phrasings": [["a"]]}', '{"phrasings": [["a", "b", [1], {}]]}',
     '{"phrasings": [["a", "b", [], {"unknown": 1}]]}', '{"phrasings": [["a", "b", [], []]], "prompt": 0}'],
)  # fmt: skip
def test_a_damaged_file_is_named_and_not_overwritten(tmp_path: Path, content: str) -> None:
    store = PhrasingStore(tmp_path, IDENTITY)
    store.add({LABELS[0]: Phrasings(("kept",))})
    good = json.loads(store.path.read_text())
    broken = content
    if content.startswith('{"phrasings'):
        broken = json.dumps({**good, **json.loads(content)})
    store.path.write_text(broken)
    with pytest.raises(DataError, match=store.path.name) as caught:
        PhrasingStore(tmp_path, IDENTITY).add({LABELS[1]: Phrasings(())})
    assert "Remove" in str(caught.value)
    assert store.path.read_text() == broken


def test_reasons_are_counted_by_the_most_frequent(tmp_path: Path) -> None:
    assert Phrasings((), (("length", 1), ("no_object", 3))).reason == "no_object"
    assert Phrasings((), (("no_object", 1), ("length", 1))).reason == "length"
    assert {Phrasings(()).reason} <= REFUSED.keys()
