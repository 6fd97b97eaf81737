"""RefSpatial (JingkunAn/RefSpatial): points and choices for grounding, and its reasoning part.

Each exchange of a row is one record, all of the group of their image (the first of several), so that the balance can be
chosen later and an image stays within one split. Which part the paper calls the reasoning subset is not published: here
it is the template questions and the simulator's rows, whose `thinking` precedes the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.data.curation.drafts import Draft, ImageFile, Row, RowFile
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.sources.conversations import IMAGE, existing, read_letter, read_names, read_options
from pokevla.data.curation.texts import read_tuples, tuple_width

MAX_TURN = 500
"""Longer turns are loops of the generator (as in other readers of this set); reasoning may be longer."""
_GROUNDING = [
    ("2D/choice_qa.json", "2d_choice"),
    ("3D/choice_qa.json", "3d_choice"),
    ("3D/vacant_qa.json", "3d_vacant"),
    ("3D/visual_choice_qa.json", "3d_visual_choice"),
    ("3D/multi_view_qa.json", "3d_multi_view"),
]
_REASONING = [
    ("2D/reasoning_template_qa.json", "2d_template"),
    ("3D/reasoning_template_qa.json", "3d_template"),
    ("Simulator/metadata.json", "simulator"),
]
_IMAGES = {
    "2d": "2D/image",
    "3d": "3D/image",
    "3d_visual_choice": "3D/image_visual_choice",
    "3d_multi_view": "3D/image_multi_view",
    "simulator": "Simulator/image",
}


@dataclass(frozen=True)
class RefSpatial:
    """One part of RefSpatial."""

    name: str
    lists: tuple[tuple[str, str], ...]
    license: str = "Apache-2.0"
    version: int = 2
    box_sample: None = None

    def files(self, root: Path) -> Sequence[RowFile]:
        """Those lists of the part that are there."""
        return existing(root, self.lists, "RefSpatial")

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """One record per exchange."""
        names = row.value.get("image")
        if not isinstance(names, list):
            raise Reject("row_layout", "image is no list of names")
        names, turns = read_names(names), _turns(row.value)
        if len(names) > 1:
            _check_tokens(row.value["conversations"], len(names))
        thinking = row.value.get("thinking")
        folder = _IMAGES.get(row.subset) or _IMAGES[row.subset[:2]]
        images = [ImageFile(f"{folder}/{name}") for name in names]
        for number, turn in enumerate(turns):
            try:
                yield self._draft(row, images, number, turn, _thought(thinking, number, len(turns)))
            except Reject as reject:
                yield reject

    def _draft(self, row: Row, images: Sequence[ImageFile], number: int, turn: Any, thought: str) -> Draft:
        if isinstance(turn, Reject):
            raise turn
        question, answer = turn
        tokens = question.count(IMAGE)
        if answer.count(IMAGE) or tokens > len(images) or (tokens and number):
            raise Reject("image_token_count", f"turn {2 * number}")
        question = question.replace(IMAGE, "").strip()
        for text in (question, answer):
            if len(text) > MAX_TURN:
                raise Reject("text_too_long", f"{len(text)} characters")
        shared: dict[str, Any] = {
            "question": question,
            "image": images[0],
            "further_images": tuple(images[1:]),
            "suffix": f"q{number:02d}",
            "orig": {"id": str(row.value.get("id")), "turn": number, "raw_answer": answer},
        }
        if answer.lstrip().startswith(("[", "((")) or tuple_width(answer):
            points = read_tuples(answer, 2)
            if thought:
                return Draft(**shared, category="reasoning", task="referring", kind="text", text=thought, points=points)
            task = "vacant_point" if "vacant" in row.subset else "object_point"
            return Draft(**shared, category="grounding", task=task, kind="point", points=points)
        options = read_options(question)
        if options and ("choice" in row.subset or len(options) > 1):
            return Draft(**shared, category="reasoning", task="choice", kind="choice", text=read_letter(answer),
                         options=options)  # fmt: skip
        text = f"{thought}\n{answer.strip()}" if thought and answer.strip() else answer
        return Draft(**shared, category="reasoning", task="spatial", kind="text", text=text)


def _turns(value: dict[str, Any]) -> list[tuple[str, str] | Reject]:
    """The exchanges; a Reject for one that is damaged. Raises Reject if their order cannot be told."""
    turns = value.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Reject("row_layout", "no conversations")
    if not turns or len(turns) % 2:
        raise Reject("turn_order", f"{len(turns)} turns")
    result: list[tuple[str, str] | Reject] = []
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        texts = (question.get("value"), answer.get("value"))
        if (question.get("from"), answer.get("from")) != ("human", "gpt"):
            result.append(Reject("turn_order", f"{question.get('from')}, {answer.get('from')}"))
        elif not isinstance(texts[0], str) or not isinstance(texts[1], str):
            result.append(Reject("row_layout", "a turn without text"))
        elif not texts[0].replace(IMAGE, "").strip() or not texts[1].strip():
            result.append(Reject("text_empty"))
        else:
            result.append((texts[0], texts[1]))
    return result


def _check_tokens(turns: list[dict[str, Any]], num_images: int) -> None:
    """Raise Reject unless the first question marks the place of each of several images."""
    first = turns[0].get("value")
    if not isinstance(first, str) or first.count(IMAGE) != num_images:
        raise Reject("image_token_count", f"not {num_images} times")


def _thought(thinking: Any, number: int, count: int) -> str:
    """The reasoning of an exchange, if there is one for each."""
    if not isinstance(thinking, list) or len(thinking) != count or not isinstance(thinking[number], dict):
        return ""
    text = thinking[number].get("thinking")
    return text.strip() if isinstance(text, str) else ""


REFSPATIAL = RefSpatial("refspatial", tuple(_GROUNDING))
REFSPATIAL_REASONING = RefSpatial("refspatial-reasoning", tuple(_REASONING))
