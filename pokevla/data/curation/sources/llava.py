"""LLaVA-Instruct-665K (liuhaotian/LLaVA-Instruct-150K, `llava_v1_5_mix665k.json`): general questions.

One row is one record with its further turns. Rows without an image are kept. `image` may be a list of names: the images
of one record, as in the sets of LLaVA-NeXT-Interleave. Boxes in rows of Visual Genome and
RefCOCO are fractions of the image padded to a square (haotian-liu/LLaVA, issue 606) and are rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.data.curation.coordinates import has_padded_box, only_padded_box
from pokevla.data.curation.drafts import Draft, ImageFile, Row, RowFile
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.sources.conversations import (
    existing,
    read_letter,
    read_names,
    read_options,
    read_turns,
    without_image_token,
)

_LETTER_ONLY = "option's letter"


@dataclass(frozen=True)
class Llava:
    """LLaVA-Instruct-665K."""

    name: str = "llava"
    license: str = "mixed: each component keeps its own terms; OpenAI terms for generated text"
    version: int = 2
    box_sample: None = None

    def files(self, root: Path) -> Sequence[RowFile]:
        """The one list."""
        return existing(root, [("llava_v1_5_mix665k.json", "mix665k")], "LLaVA-Instruct-665K")

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """One record."""
        names = _names(row.value.get("image"))
        (question, answer), *further = without_image_token(read_turns(row.value), len(names))
        texts = [question, answer, *(text for turn in further for text in turn)]
        has_boxes = bool(names) and any(map(has_padded_box, texts))
        orig = {"id": str(row.value.get("id")), "part": names[0].split("/")[0] if names else "text"}
        images = [ImageFile(name, _alternatives(name)) for name in names]
        draft = Draft(
            category="general",
            task="region" if has_boxes else "conversation" if further else "question",
            question=question,
            image=images[0] if images else None,
            further_images=tuple(images[1:]),
            kind="text",
            text=answer,
            further_turns=tuple(further),
            padded_boxes=has_boxes,
            orig=orig,
        )
        box = only_padded_box(answer) if has_boxes else None
        if box is not None and not further:
            yield Draft(**{**vars(draft), "kind": "box", "text": "", "boxes": [box], "scale": "padded"})
        elif not further and _LETTER_ONLY in question and images:
            options = read_options(question)
            yield Draft(**{**vars(draft), "kind": "choice", "text": read_letter(answer), "options": options})
        else:
            yield draft


def _names(image: Any) -> list[str]:
    """The names of a row's images. Raises Reject."""
    if isinstance(image, list):
        return read_names(image)
    if image is not None and not isinstance(image, str):
        raise Reject("row_layout", "image is no text")
    return [] if image is None else [image]


def _alternatives(image: str) -> tuple[str, ...]:
    """OCR-VQA's pictures are GIF or PNG for some users, and JPEG for those who converted them."""
    if not image.startswith("ocr_vqa/"):
        return ()
    stem = image.rsplit(".", 1)[0]
    return tuple(f"{stem}.{ending}" for ending in ("jpg", "png", "gif") if f"{stem}.{ending}" != image)


LLAVA = Llava()
