"""What a source gives: files of rows, and from each row drafts of records. Everything after that is the same for all.

A source names the convention of its coordinates; the image is opened, coordinates are converted and rules are checked
by `making.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pokevla.data.curation.rules import Reject
from pokevla.data.records import AnswerKind, Category

Scale = Literal["pixel", "unit", "padded", "percent", "byte", "thousand", "thousand_yx"]
"""Convention of coordinates: pixels of the stored image; 0-1 of the image; 0-1 of the image padded to a centred square;
0-100; 0-255; 0-1000; 0-1000 with y before x."""
BoxOrder = Literal["xyxy", "xywh"]


@dataclass(frozen=True)
class RowFile:
    """A file of rows: a JSON list, JSON lines or parquet; or a folder of JSON files of one row each."""

    path: Path
    subset: str
    """Name of the part of the source that it is. Becomes part of keys."""


@dataclass(frozen=True)
class Row:
    """One row of a source."""

    value: dict[str, Any]
    number: int
    """Place in its file, from 0."""
    file: str
    """Path of its file, relative to the source."""
    subset: str
    root: Path
    """Folder of the source."""
    box_order: BoxOrder | None = None
    """What was decided for the boxes of the file (`Source.box_sample`). None: nothing is decided."""


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of the source."""

    path: str
    """Relative to the folder of the source."""
    alternatives: tuple[str, ...] = ()
    """Other places where the file may be."""


@dataclass(frozen=True)
class ImageBytes:
    """An image in the row itself."""

    content: bytes
    name: str


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video of the source."""

    path: str
    place: Literal["first", "middle", "last"]


Image = ImageFile | ImageBytes | VideoFrame


@dataclass(frozen=True)
class Draft:
    """A record before its image is opened."""

    category: Category
    task: str
    question: str
    image: Image | None
    kind: AnswerKind
    text: str = ""
    """The answer of kind `text`, or the letter of kind `choice`. Before a point: reasoning that leads to it."""
    options: tuple[str, ...] = ()
    """Letters that may be chosen."""
    points: Sequence[Sequence[float]] = ()
    """Of kinds `point` and `trace`: (x, y) in `scale`."""
    boxes: Sequence[Sequence[float]] = ()
    """Of kind `box`: four numbers each, in `scale` and `box_order`."""
    scale: Scale = "unit"
    box_order: BoxOrder = "xyxy"
    stated_size: tuple[int, int] | None = None
    """(width, height) that the row gives."""
    further_turns: tuple[tuple[str, str], ...] = ()
    """Questions and answers that follow in the same conversation."""
    further_images: tuple[Image, ...] = ()
    """Those that follow the first one, in order. The model sees all of them before the text."""
    padded_boxes: bool = False
    """Whether the texts hold boxes `[x1, y1, x2, y2]` in 0-1 of the padded square, to be rewritten."""
    mask: str | ImageBytes | None = None
    """Path or content of a mask of the object: boxes are compared with it; kind `point` without points takes points
    inside it."""
    heat_map: tuple[str, ...] = ()
    """Paths where a heat map of the point may be."""
    suffix: str = ""
    """What tells apart the records of one row."""
    orig: dict[str, Any] = field(default_factory=dict)
    """JSON values for provenance, and for later steps of curation."""

    @property
    def images(self) -> tuple[Image, ...]:
        """All images, in order."""
        return () if self.image is None else (self.image, *self.further_images)


class Source(Protocol):
    """A published question set. With several workers each has its own copy, made by pickling."""

    @property
    def name(self) -> str:
        """Short name: letters, digits and `-`."""
        ...

    @property
    def license(self) -> str:
        """Licence of the set."""
        ...

    @property
    def version(self) -> int:
        """Raise it when `drafts` gives something else: finished parts of another version are not used."""
        ...

    def files(self, root: Path) -> Sequence[RowFile]:
        """Files of rows below `root`, in a fixed order.

        Raises DataError if what `root` holds is not this source.
        """
        ...

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """The records of a row, and a Reject in place of each that is left out. Raises Reject if the whole row, or
        what follows of it, is left out. Reads no files."""
        ...

    @property
    def box_sample(self) -> Callable[[Row], Sequence[Sequence[float]]] | None:
        """The boxes of a row as they stand, 0-1: the order of their numbers is decided from all boxes of the file.
        None: the source's boxes are known."""
        ...
