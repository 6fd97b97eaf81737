"""HOVA-500K (JiaaZ/HOVA-500K, TeleeMa/GLOVER): where hands touch objects in Ego4D and EPIC-KITCHENS.

The labels are a verb and a noun. Questions are one plain sentence of them; both stay in the record for rewriting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.data.curation.drafts import Draft, ImageFile, Row, RowFile
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.sources.conversations import existing
from pokevla.data.curation.texts import check_numbers

_IDLE = (
    "approach,check,count,find,inspect,listen,look,move around,observe,read,run,search,see,sit,smell,stand,talk,think,"
    "view,wait,walk,watch"
)
_BODY = "arm,body,camera,face,finger,fingers,foot,hair,hand,hands,head,leg,man,person,self,woman"
NO_CONTACT = frozenset(_IDLE.split(","))
"""Verbs that name no contact of a hand with an object."""
PERSON = frozenset(_BODY.split(","))
"""Nouns that are no object."""
_HEAT_MAPS = ("GT_gaussian", "GT_gaussian_sp", "GT_gaussian_sp_70")


@dataclass(frozen=True)
class Hova:
    """One part of HOVA-500K."""

    name: str
    part: str
    """`ego4d` or `epic100`."""
    license: str
    version: int = 1
    box_sample: None = None

    def files(self, root: Path) -> Sequence[RowFile]:
        """The list of the training split."""
        return existing(root, [(f"annotations/train/{self.part}.json", self.part)], "HOVA-500K")

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """A point."""
        value = row.value
        is_ego4d = self.part == "ego4d"
        path, heat = _text(value, "img_path"), _text(value, "gt_path")
        verb = _phrase(_text(value, "action" if is_ego4d else "verb"))
        noun = _phrase(_text(value, "noun"))
        if verb.split()[0] in NO_CONTACT or verb in NO_CONTACT:
            raise Reject("verb_no_contact", verb)
        if noun.split()[-1] in PERSON:
            raise Reject("noun_person", noun)
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
            question=f"Which place on the {noun} would a hand touch to {verb} it?",
            image=image,
            kind="point",
            points=points,
            scale="pixel",
            stated_size=_size(value) if is_ego4d else None,
            heat_map=tuple(f"{folder}/{maps}/{heat}" for maps in _HEAT_MAPS),
            orig={
                "verb": value["action" if is_ego4d else "verb"],
                "noun": value["noun"],
                "group": str(value.get("narration_id") or path.rsplit("/", 1)[0]),
                "raw_answer": value["points"],
            },
        )


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
