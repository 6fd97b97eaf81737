"""A mixture of nine samples written by hand, of which all figures can be counted by hand."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from pokevla.data.mixing.summary import (
    SUMMARY_NAME,
    AnswerFacts,
    CategoryFacts,
    CountFacts,
    InputFacts,
    ListFacts,
    MixtureSummary,
    StratumFacts,
)
from pokevla.data.records import (
    VLMRecord,
    box_record,
    choice_record,
    format_points,
    image_names,
    point_record,
    text_record,
)
from pokevla.data.tables.questions import SCHEMA, SEVERAL_IMAGES, table_row
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.files.texts import write_json

HOSTILE = "<script>alert('x')</script> & \"quotes\""


@contextmanager
def uncounted(_what: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda _done, _total: None


def record(number: int, category: Any, source: str, task: str, question: str, **answer: Any) -> VLMRecord:
    shared = {"subset": "", "split": "train", "width": 64, "height": 48, "license": "CC0"}
    return VLMRecord(f"{source}/{number}", source, category=category, task=task, question=question, **(shared | answer))


RECORDS = {
    "general": [
        record(0, "general", "talk", "chat", "What is it?", **text_record("A red cup"),
               further_turns=(("Why?", "So."),)),
        record(1, "general", "talk", "chat", "What is  this", **text_record("One\nTwo"), width=0, height=0),
    ],
    "grounding": [
        record(0, "grounding", "spots", "free", "Point here.", **point_record([(0.1, 0.1), (0.6, 0.6)])),
        record(1, "grounding", "spots", "free", "Point here.", **point_record([(0.6, 0.7)])),
        record(2, "grounding", "spots", "thing", "Point there.", **box_record((0.2, 0.2, 0.4, 0.6))),
        record(3, "grounding", "other", "thing", "Mark the cup.", **point_record([(0.9, 0.9)])),
    ],
    "reasoning": [
        record(0, "reasoning", "logic", "pick", "Which? (A) cup (B) jug", **choice_record("B")),
        record(1, "reasoning", "logic", "pick", "Which? (A) jug (B) cup", **choice_record("A")),
        record(2, "reasoning", "logic", "move", "Go on.", answer=format_points([(0.1, 0.2), (0.3, 0.4), (0.5, 0.6)]),
               answer_kind="trace", points=((0.1, 0.2), (0.3, 0.4), (0.5, 0.6))),
    ],
}  # fmt: skip


def jpeg(record: VLMRecord) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (record.width, record.height), "gray").save(buffer, "JPEG")
    return buffer.getvalue()


def write_dataset(out: Path, records: list[VLMRecord]) -> dict[str, Any]:
    """What `mixture.json` says about it."""
    schema = SEVERAL_IMAGES if any(each.num_images > 1 for each in records) else SCHEMA
    with DatasetWriter(out, group=out.name, samples=schema, shard_samples=2) as writer:
        for each in records:
            plain = each.to_json()
            images = {name: jpeg(each) for name in image_names(each.num_images if each.width else 0)}
            members = {"json": encode_json(plain)} | images
            writer.add_sample(each.key, members, table_row(plain))
        writer.finish({"statistics": None, "sources": []})
    from pokevla.recipe.checking.datasets import read_info

    info = read_info(out)
    return {"fingerprint": info["fingerprint"], "samples": info["num_samples"], "size_bytes": 2 << 30}


def count(category: str, source: str, task: str, kind: str, **steps: Any) -> CountFacts:
    empty = {"read": 0, "not_wanted": 0, "left_out": {}, "capped": 0, "unbalanced": 0, "over_budget": 0, "selected": 0}
    return CountFacts(category, source, task, kind, **(empty | steps))


def write_tiny(folder: Path, records: dict[str, list[VLMRecord]] = RECORDS, **changes: Any) -> MixtureSummary:
    """The mixture. Affordance has a budget and no samples."""
    summary = MixtureSummary(
        name="tiny",
        seed=7,
        recipe={"kind": "mixture", "name": "tiny"},
        inputs=[
            InputFacts("sets/talk", "f" * 64, 5, {"talk": 5}, "CC0", {"image_missing": 3, "other_set": 90}, []),
            InputFacts(
                "sets/spots",
                "e" * 64,
                9,
                {"spots": 9},
                "",
                {"image_missing": 1},
                ["boxes_equal", "many_rejected", "strange"],
            ),
        ],
        lists=[ListFacts("lists/twice", "duplicates", "0123456789abcdef", {"duplicate": 2}, [])],
        categories=[
            CategoryFacts("general", 2, 665_000, 4, 2, "general"),
            CategoryFacts("grounding", 4, 694_000, 4, 4, "grounding"),
            CategoryFacts("affordance", 8, 553_000, 0, 0, None),
            CategoryFacts("reasoning", 3, 511_000, 3, 3, "reasoning"),
        ],
        strata=[StratumFacts("general", "talk", "chat", 2.0, 0, 4, 4, 2)],
        counts=[
            count("general", "talk", "chat", "text", read=6, left_out={"duplicate": 2}, over_budget=2, selected=2),
            count("grounding", "other", "thing", "point", read=1, selected=1),
            count("grounding", "spots", "free", "point", read=3, capped=1, selected=2),
            count("grounding", "spots", "thing", "box", read=1, selected=1),
            count("reasoning", "logic", "move", "trace", read=1, selected=1),
            count("reasoning", "logic", "pick", "choice", read=4, unbalanced=2, selected=2),
        ],
        letters=[
            AnswerFacts("reasoning", "logic", "pick", 2, {"A": 4}, {"A": 1, "B": 1}),
            AnswerFacts("reasoning", "logic", "other", 2, {"B": 1}, {}, fixed=0),
        ],
        yes_no=[AnswerFacts("reasoning", "logic", "pick", 0, {"yes": 3, "no": 1}, {"yes": 1, "no": 1})],
        thinned={"grounding": 1},
        datasets={},
        notes=["affordance: the sources have 0 samples of the budget of 8; 8 are missing."],
        made_by={"pokevla": "0.1.0", "commit": "abc"},
    )
    summary = replace(summary, **changes)
    summary = replace(summary, datasets={name: write_dataset(folder / name, its) for name, its in records.items()})
    write_json(folder / SUMMARY_NAME, summary.to_json())
    return summary
