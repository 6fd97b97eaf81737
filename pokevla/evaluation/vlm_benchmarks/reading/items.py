"""Questions of a benchmark, whatever layout they are published in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from pokevla.errors import UsageError

Wording = Literal["official", "pokevla"]
"""Who words the request for a format: the benchmark, or the questions that PokeVLM is trained on."""
WORDINGS: tuple[Wording, ...] = ("official", "pokevla")


@dataclass(frozen=True)
class Item:
    """One question with its image, and what a right answer is: a mask, or the letter of an option."""

    id: str
    question: str
    """Without the request for a format."""
    prompt: str
    """What the model is asked."""
    image: Image.Image
    image_name: str
    """Questions of one name are drawn together by the bootstrap."""
    mask: np.ndarray | None = None
    """(H, W) float64 in [0, 1]: how right each pixel is."""
    choices: tuple[str, ...] = ()
    letter: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    """Field -> value by which scores are also given, such as `task` or `category`."""


@dataclass(frozen=True)
class Part:
    """A part of a benchmark with a score of its own, such as the split `placement`."""

    name: str
    column: str
    """Column of the paper's Table III."""
    count: int
    """Questions in the data."""
    published_count: int
    """Questions in the published set."""
    read: Callable[[list[int]], Iterator[Item]]
    """The questions with these numbers, in ascending order, one at a time."""


def chosen_parts(parts: Mapping[str, str], names: list[str] | None) -> list[str]:
    """`names` in the order of `parts`; all of them if None or empty. UsageError for an unknown one."""
    if unknown := [name for name in names or [] if name not in parts]:
        raise UsageError(f"There is no part {unknown[0]!r}.", f"Parts: {', '.join(parts)}.")
    return [name for name in parts if not names or name in names]


def refuse_unknown_wording(name: str) -> Wording:
    """`name` as a wording. UsageError if it is none."""
    for wording in WORDINGS:
        if name == wording:
            return wording
    raise UsageError(f"There is no wording {name!r}.", f"Wordings: {', '.join(WORDINGS)}.")


def without_image_tag(text: str) -> str:
    """A question without LLaVA's mark for the image, which every model has its own of."""
    return text.replace("<image>", "").strip()


def find_root(data: Path, marks: tuple[str, ...]) -> Path:
    """`data`, or its folder `data`, in which the hub keeps parquet files, if one of the patterns `marks` is there."""
    inner = data / "data"
    return inner if inner.is_dir() and any(next(inner.glob(mark), None) for mark in marks) else data
