"""Questions about one image become conversations: none lost, none twice, none about another image."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.mixing.drawing import Drawn, DrawWork
from pokevla.data.mixing.joining import grouped, joined_record
from pokevla.data.mixing.summary import read_summary
from pokevla.data.reader import ShardReader
from pokevla.data.tables.questions import SEVERAL_IMAGES, table_row
from pokevla.data.writer import DatasetWriter, encode_json
from tests.unit.data.mixing.planted import KILLER, contents, write_recipe

ITEMS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(1, 3)), max_size=60)


@given(ITEMS)
def test_groups_are_those_of_a_plain_loop(items: list[tuple[int, int, int]]) -> None:
    expected: list[list[int]] = []
    for place, item in enumerate(items):
        ours = [group for group in expected if items[group[0]] == item and len(group) < item[2]]
        if ours:
            ours[0].append(place)
        else:
            expected.append([place])
    image, source, most = (np.array([item[n] for item in items], dtype=np.int64) for n in range(3))
    order, starts = grouped([image, source], most)
    assert [order[a:b].tolist() for a, b in pairwise(starts.tolist())] == expected


def records_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Records by key, with the image under `jpg`."""
    dataset = open_dataset(folder)
    reader = ShardReader(dataset)
    found = {}
    for row in range(len(dataset.rows)):
        members = reader.read(row)
        found[dataset.rows.text("key", row)] = {**json.loads(members["json"]), "jpg": members.get("jpg")}
    reader.close()
    return found


def joined_sources(converted: Path, most: int = 3) -> list[dict[str, Any]]:
    return [
        {"path": str(converted / "robopoint")},
        {
            "path": str(converted / "refspatial"),
            "caps": [{"by": "image", "at_most": 5}],
            "questions_per_sample": most,
        },
        {"path": str(converted / "llava")},
    ]


@pytest.fixture(scope="module")
def joined(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("joined")
    recipe = write_recipe(out / "r.yaml", sources / "few", out, sources=joined_sources(sources / "few"))
    assert run(["data", "mix", str(recipe), "--workers", "0"]) == 0
    return out / "vlm"


def turns_of(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [(record["question"], record["answer"]), *map(tuple, record.get("further_turns", ()))]


def test_the_same_questions_are_taken_each_in_one_turn(mixed: Path, joined: Path) -> None:
    for category in ("general", "grounding", "reasoning"):
        single, conversations = records_of(mixed / category), records_of(joined / category)
        found: dict[str, tuple[str, str]] = {}
        for key, record in conversations.items():
            keys = [key, *record["orig"].get("joined", ())]
            for each, turn in zip(keys, turns_of(record), strict=True):
                assert each not in found
                found[each] = turn
                assert (single[each]["jpg"], single[each]["source"]) == (record["jpg"], record["source"])
        assert found == {key: (record["question"], record["answer"]) for key, record in single.items()}


def test_a_conversation_is_as_long_as_the_recipe_allows(joined: Path) -> None:
    of_image: dict[bytes, list[int]] = {}
    for record in records_of(joined / "reasoning").values():
        of_image.setdefault(record["jpg"], []).append(len(turns_of(record)))
    assert any(3 in lengths for lengths in of_image.values())
    for lengths in of_image.values():
        assert sorted(lengths)[1:] == [3] * (len(lengths) - 1)  # only one has less
    assert all(len(turns_of(record)) == 1 for record in records_of(joined / "general").values())
    summary = read_summary(joined)
    assert summary.selected == 108
    assert summary.written == sum(len(records_of(joined / name)) for name in summary.datasets) < 108
    page = (joined / "report.html").read_text(encoding="utf-8")
    assert "conversations, into which they were joined" in page
    shown = [turns_of(record) for key, record in records_of(joined / "reasoning").items() if key in page]
    assert any(len(turns) == 3 for turns in shown)
    assert all(question in page for turns in shown for question, _ in turns)


def test_shards_processes_and_kills_change_nothing(
    sources: Path, joined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokevla.data.mixing.mixing.PART_QUESTIONS", 16)
    recipe = write_recipe(
        tmp_path / "r.yaml", sources / "many", tmp_path / "out", sources=joined_sources(sources / "many")[::-1]
    )
    for name, count in (("read_record", 330), ("add_sample", 30)):
        words = [sys.executable, "-c", KILLER, name, str(count), str(recipe), "--workers", "0"]
        assert subprocess.run(words, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert run(["data", "mix", str(recipe), "--workers", "2"]) == 0
    assert contents(tmp_path / "out/vlm") == contents(joined)


def test_questions_about_several_images_and_texts_stay_alone(tmp_path: Path) -> None:
    shared = {"source": "own", "subset": "a", "category": "grounding", "task": "object_point", "split": "train",
              "width": 8, "height": 8, "answer_kind": "point", "answer": "[(0.500, 0.500)]",
              "target": {"points": [[0.5, 0.5]], "boxes": [], "choice": None}}  # fmt: skip
    members = [{"jpg": b"one"}, {"jpg": b"one"}, {"jpg": b"one", "1.jpg": b"two"}, {"jpg": b"one", "1.jpg": b"two"}]
    members += [{}, {}]
    with DatasetWriter(tmp_path / "own", group="own", samples=SEVERAL_IMAGES) as writer:
        for number, images in enumerate(members):
            record = {**shared, "key": f"own-{number}", "question": f"Where {number}?", "num_images": len(images)}
            record["flags"] = [f"flag{number}", "both"]
            writer.add_sample(record["key"], {"json": encode_json(record), **images}, table_row(record))
        writer.finish({"statistics": None, "sources": []})
    recipe = write_recipe(
        tmp_path / "r.yaml", tmp_path, tmp_path / "out",
        sources=[{"path": str(tmp_path / "own"), "questions_per_sample": 8}],
        categories={"grounding": {"budget": 6}},
    )  # fmt: skip
    assert run(["data", "mix", str(recipe), "--workers", "0"]) == 0
    found = records_of(tmp_path / "out/vlm/grounding")
    assert sorted(len(turns_of(record)) for record in found.values()) == [1, 1, 1, 1, 2]
    (both,) = (record for record in found.values() if len(turns_of(record)) == 2)
    assert sorted(both["flags"]) == ["both", "flag0", "flag1"]
    assert {question for question, _ in turns_of(both)} == {"Where 0?", "Where 1?"}


def test_conversations_are_joined_with_all_their_turns() -> None:
    one = {"key": "a", "question": "1?", "answer": "1", "further_turns": [["2?", "2"]], "orig": {"row": 3}}
    other = {"key": "b", "question": "3?", "answer": "3", "further_turns": [["4?", "4"]]}
    made = joined_record([one, other])
    assert made["further_turns"] == [["2?", "2"], ["3?", "3"], ["4?", "4"]]
    assert (made["key"], made["question"], made["orig"]) == ("a", "1?", {"row": 3, "joined": ["b"]})
    assert joined_record([one]) is one


def test_a_question_stays_in_its_split(tmp_path: Path) -> None:
    """Equal pictures may have two names, of which one is for validation."""
    shared = {"source": "own", "subset": "a", "category": "grounding", "task": "object_point", "width": 8,
              "height": 8, "answer_kind": "point", "answer": "[(0.500, 0.500)]",
              "target": {"points": [[0.5, 0.5]], "boxes": [], "choice": None}}  # fmt: skip
    with DatasetWriter(tmp_path / "own", group="own", samples=SEVERAL_IMAGES) as writer:
        for number, split in enumerate(("train", "val", "train", "val")):
            record = {**shared, "key": f"own-{number}", "question": f"Where {number}?", "split": split}
            writer.add_sample(record["key"], {"json": encode_json(record), "jpg": b"one"}, table_row(record))
        writer.finish({"statistics": None, "sources": []})
    recipe = write_recipe(
        tmp_path / "r.yaml", tmp_path, tmp_path / "out", split="all",
        sources=[{"path": str(tmp_path / "own"), "questions_per_sample": 4}],
        categories={"grounding": {"budget": 4}},
    )  # fmt: skip
    assert run(["data", "mix", str(recipe), "--workers", "0"]) == 0
    found = records_of(tmp_path / "out/vlm/grounding")
    asked = {record["split"]: {question for question, _ in turns_of(record)} for record in found.values()}
    assert asked == {"train": {"Where 0?", "Where 2?"}, "val": {"Where 1?", "Where 3?"}}


def test_parts_hold_a_bounded_number_of_questions() -> None:
    nothing = np.zeros(14, dtype=np.int64)
    drawn = Drawn("all", nothing, nothing, nothing, np.array([0, 3, 6, 7, 12, 13, 14]))
    parts = DrawWork([], [drawn], 4, None, 0, Path()).parts()
    assert [(part.first, part.stop, part.questions) for part in parts] == [(0, 1, 3), (1, 3, 4), (3, 4, 5), (4, 6, 2)]
