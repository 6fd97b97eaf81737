"""HOVA-500K (JiaaZ/HOVA-500K, TeleeMa/GLOVER): where hands touch objects in Ego4D and EPIC-KITCHENS.

The labels are a verb and a noun. Both stay in the record; `pokevla.data.curation.rewriting` words the question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokevla.data.curation.drafts import Draft, ImageFile, Row, RowFile
from pokevla.data.curation.rewriting.prompt import Label
from pokevla.data.curation.rewriting.wording import Wording
from pokevla.data.curation.row_files import read_rows, survey_file
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.sources.conversations import existing
from pokevla.data.curation.texts import check_numbers, refuse_special_tokens

_IDLE = (
    "approach,ask,check,count,find,inspect,kneel,listen,look,move around,observe,read,run,search,see,sit,smell,stand,"
    "talk,think,transition,view,wait,walk,watch"
)
_BODY = "arm,body,camera,face,finger,fingers,foot,hair,hand,hands,head,leg,man,person,self,woman"
NO_CONTACT = frozenset(_IDLE.split(","))
"""Verbs that name no contact of a hand with an object."""
PERSON = frozenset(_BODY.split(","))
"""Nouns that are no object."""
_MAX_LABEL_CHARS = 200
_HEAT_MAPS = ("GT_gaussian", "GT_gaussian_sp", "GT_gaussian_sp_70")


@dataclass(frozen=True)
class Hova:
    """One part of HOVA-500K."""

    name: str
    part: str
    """`ego4d` or `epic100`."""
    license: str
    version: int = 2
    box_sample: None = None
    wording: Wording = field(default_factory=Wording)

    def files(self, root: Path) -> Sequence[RowFile]:
        """The list of the training split."""
        return existing(root, [(f"annotations/train/{self.part}.json", self.part)], "HOVA-500K")

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """A point."""
        value = row.value
        is_ego4d = self.part == "ego4d"
        path, heat = _text(value, "img_path"), _text(value, "gt_path")
        label = self.label(value)
        key = "\0".join([self.name, path, heat, label.verb, label.noun])
        question, origin = self.wording.question(label.verb, label.noun, key)
        points = check_numbers(value.get("points"), 2)
        if is_ego4d:
            name = path if path.endswith((".jpg", ".png")) else f"{path}.jpg"
            image = ImageFile(f"Ego4D/frames/{name}", (f"Ego4D/frames_copy/{name}",))
            folder = "Ego4D"
        else:
            image = ImageFile(f"epic-100/EPIC-KITCHENS_frames/{path}", (f"epic-100/{path}",))
            folder = "epic-100"
        yield Draft(
            category="affordance",
            task="contact_point",
            question=question,
            image=image,
            kind="point",
            points=points,
            scale="pixel",
            stated_size=_size(value) if is_ego4d else None,
            heat_map=tuple(f"{folder}/{maps}/{heat}" for maps in _HEAT_MAPS),
            orig={
                "verb": value[self._verb_field],
                "noun": value["noun"],
                "rewrite": origin,
                "group": str(value.get("narration_id") or path.rsplit("/", 1)[0]),
                "raw_answer": value["points"],
            },
        )

    @property
    def _verb_field(self) -> str:
        return "action" if self.part == "ego4d" else "verb"

    def label(self, value: dict[str, Any]) -> Label:
        """The label of a row as lower-case words. Raises Reject if it names no contact with an object."""
        verb = _phrase(_label_text(value, self._verb_field))
        noun = _phrase(_label_text(value, "noun"))
        if verb.split()[0] in NO_CONTACT or verb in NO_CONTACT:
            raise Reject("verb_no_contact", verb)
        if noun.split()[-1] in PERSON:
            raise Reject("noun_person", noun)
        return Label(verb, noun)


def labels_of(source: Hova, root: Path) -> Iterator[Label]:
    """The labels of all rows of a source, in order, repeated as there. Rows that are left out for their label have
    none.

    Raises:
        DataError: a file cannot be read.
    """
    for file in source.files(root):
        for chunk in survey_file(file.path).chunks:
            for _, value in read_rows(file.path, chunk):
                if isinstance(value, Reject):
                    continue
                try:
                    yield source.label(value)
                except Reject:
                    continue


def _label_text(value: dict[str, Any], name: str) -> str:
    text = _text(value, name)
    if len(text) > _MAX_LABEL_CHARS:
        raise Reject("text_too_long", f"{name} of {len(text)} characters")
    refuse_special_tokens(text)
    return text


def _text(value: dict[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise Reject("row_layout", f"no {name}")
    if not text.strip():
        raise Reject("text_empty", name)
    return text.strip()


def _phrase(label: str) -> str:
    """A label as words: `drawer_(drawer,_cabinet_drawer)` is `drawer`, `board:chopping` is `chopping board`."""
    label = re.sub(r"[_\s]*\(.*\)?", "", label)
    words = " ".join(reversed(label.split(":")))
    phrase = " ".join(re.sub(r"[_\-]+", " ", words).split()).lower()
    if not phrase:
        raise Reject("text_empty", label)
    return phrase


def _size(value: dict[str, Any]) -> tuple[int, int]:
    width, height = value.get("width"), value.get("height")
    if not isinstance(width, int) or not isinstance(height, int):
        raise Reject("row_layout", "no width and height")
    return width, height


HOVA_EGO4D = Hova("hova-ego4d", "ego4d", "MIT; the pictures: Ego4D licence")
HOVA_EPIC100 = Hova("hova-epic100", "epic100", "MIT; the pictures: EPIC-KITCHENS-100, CC BY-NC 4.0")
