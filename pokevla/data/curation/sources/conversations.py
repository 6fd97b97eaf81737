"""Rows of LLaVA's form: turns between `human` and `gpt`, `<image>` in the first for each image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pokevla.data.curation.drafts import RowFile
from pokevla.data.curation.json_lists import file_head, refuse_archive
from pokevla.data.curation.rules import Reject
from pokevla.data.records import MAX_IMAGES
from pokevla.errors import DataError

IMAGE = "<image>"
_OPTION = re.compile(r"\(([A-H])\)\s*([^()]*)")
_OPTION_LINE = re.compile(r"^([A-H])[.)]\s", re.MULTILINE)
_LETTER = re.compile(r"\(?([A-H])\)?(?=$|[.):,\s])")


def read_turns(value: dict[str, Any], roles: tuple[str, str] = ("human", "gpt")) -> list[tuple[str, str]]:
    """(question, answer) of each exchange, `<image>` still in them.

    Raises Reject: `row_layout`, `turn_order`.
    """
    turns = value.get("conversations")
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise Reject("row_layout", "no conversations")
    texts = [turn.get("value") for turn in turns]
    if not all(isinstance(text, str) for text in texts):
        raise Reject("row_layout", "a turn without text")
    if not turns or len(turns) % 2 or [turn.get("from") for turn in turns] != list(roles) * (len(turns) // 2):
        raise Reject("turn_order", ", ".join(str(turn.get("from")) for turn in turns)[:60])
    return list(zip(texts[::2], texts[1::2], strict=True))


def read_names(names: list[Any]) -> list[str]:
    """The names of a row's images. Raises Reject: `row_layout`, `multi_image`."""
    if not names or not all(isinstance(name, str) for name in names):
        raise Reject("row_layout", "image is no list of names")
    if len(names) > MAX_IMAGES:
        raise Reject("multi_image", f"{len(names)} images")
    return names


def without_image_token(turns: Sequence[tuple[str, str]], num_images: int) -> list[tuple[str, str]]:
    """The turns without `<image>`: all images come before the text, wherever the mark stands.

    Raises Reject `image_token_count` unless it stands once for each image, all in the first question.
    """
    count = sum(text.count(IMAGE) for turn in turns for text in turn)
    if count != num_images or turns[0][0].count(IMAGE) != num_images:
        raise Reject("image_token_count", f"{count} times")
    (question, answer), *rest = turns
    return [(question.replace(IMAGE, "").strip(), answer), *rest]


def read_options(question: str) -> tuple[str, ...]:
    """Letters of the options in a question: `(A) cup (B) bowl`, or lines `A. cup`."""
    found = [match[1] for match in _OPTION.finditer(question)] or _OPTION_LINE.findall(question)
    return tuple(dict.fromkeys(found))


def read_letter(answer: str) -> str:
    """The letter that an answer begins with. Raises Reject `choice_not_in_options`."""
    match = _LETTER.match(answer.strip())
    if match is None:
        raise Reject("choice_not_in_options", answer[:40])
    return match[1]


def existing(root: Path, names: Sequence[tuple[str, str]], source: str) -> list[RowFile]:
    """Those of the files (path, subset) that are there.

    Raises DataError: none is there, or a name is an archive.
    """
    if not any((root / name).exists() for name, _ in names):
        _refuse_packed(root)
        wanted = ", ".join(name for name, _ in names)
        raise DataError(f"{root} holds none of the files of {source}: {wanted}.", "Give the folder that contains them.")
    return [RowFile(root / name, subset) for name, subset in names if (root / name).exists()]


def _refuse_packed(root: Path) -> None:
    if root.is_dir():
        for path in sorted(root.iterdir()):
            if path.is_file():
                refuse_archive(path, file_head(path))
