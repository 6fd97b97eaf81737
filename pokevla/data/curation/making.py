"""One chunk of rows, made a part of the conversion: records and images, and why others were left out.

000003/records.jsonl     a record, and where its images are in images.bin, per line
000003/images.bin        JPEGs, each once
000003/part.json         counts, examples, and what the part was made of
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import xxhash

from pokevla.data.conversion.unfinished import AGAIN, new_part, part_folder
from pokevla.data.curation.drafts import BoxOrder, Draft, Image, ImageBytes, ImageFile, Row, RowFile, Source
from pokevla.data.curation.images import Opened, open_image
from pokevla.data.curation.row_files import Chunk, RowReader
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.validator import answer_fields
from pokevla.data.records import VLMRecord
from pokevla.data.writer import encode_json
from pokevla.errors import DataError
from pokevla.files.texts import read_json

RECORDS, IMAGES, HEADER = "records.jsonl", "images.bin", "part.json"
NAMES = (*(f"*/{name}" for name in (RECORDS, IMAGES, HEADER)), "survey-*.json")
"""What a conversion writes into its unfinished folder."""
MAX_EXAMPLES = 20
_CACHED_IMAGES = 8
_OF_FILES = ("image_missing", "image_corrupt", "video_missing", "video_corrupt", "mask_missing")
"""Codes whose cause is a file: it may have been repaired when the conversion goes on."""


@dataclass(frozen=True)
class MakingSettings:
    """What a part depends on besides its rows."""

    max_side: int
    jpeg_quality: int
    max_text: int
    val_every: int
    """Every Nth image group is of the split `val`; 0: none."""


@dataclass(frozen=True)
class Task:
    """A chunk of one file."""

    file: RowFile
    name: str
    """Path of the file, relative to the source."""
    chunk: Chunk
    box_order: BoxOrder | None

    @property
    def origin(self) -> list[Any]:
        """What the part is made of, as JSON."""
        return [self.name, self.chunk.first, self.chunk.digest, self.box_order]


@dataclass
class PartHeader:
    """Counts of a part."""

    origin: list[Any]
    rows: int = 0
    records: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    flagged: dict[str, int] = field(default_factory=dict)
    examples: list[list[Any]] = field(default_factory=list)
    """Code, row and detail of the first records of each code that were left out."""
    blamed: list[list[Any]] = field(default_factory=list)
    """Path, size and time of files for which records were left out; size None: it was missing."""
    several_images: int = 0
    """Records with more images than one."""


@dataclass(frozen=True)
class ChunkWork:
    """What each process of the conversion does (`pokevla.data.conversion.workers.Work`)."""

    source: Source
    root: Path
    tasks: dict[int, Task]
    settings: MakingSettings
    folder: Path

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], None]]:
        """The parquet file that is being read stays open."""
        with RowReader() as reader:
            yield partial(self._make, reader)

    def crashed(self, number: int, problem: str) -> None:
        """Store that all rows of the chunk were lost."""
        task = self.tasks[number]
        rows = task.chunk.count
        detail = f"rows {task.chunk.first} to {task.chunk.first + rows - 1}: {problem}"
        header = PartHeader(task.origin, rows, 0, {"crashed": rows}, {}, [["crashed", task.chunk.first, detail]])
        with new_part(self.folder, number) as new:
            (new / RECORDS).touch()
            (new / IMAGES).touch()
            _write_header(new, header)

    def _make(self, reader: RowReader, number: int) -> None:
        with (
            new_part(self.folder, number) as new,
            (new / RECORDS).open("xb") as records,
            (new / IMAGES).open("xb") as images,
        ):
            part = _Part(self.source, self.root, self.tasks[number], self.settings, records, images)
            part.make(reader)
            _write_header(new, part.header)


def _write_header(new: Path, header: PartHeader) -> None:
    (new / HEADER).write_text(json.dumps(vars(header)), encoding="utf-8")


class _Part:
    """A part while it is made."""

    def __init__(
        self,
        source: Source,
        root: Path,
        task: Task,
        settings: MakingSettings,
        records: IO[bytes],
        images: IO[bytes],
    ) -> None:
        self._source, self._root, self._task, self._settings = source, root, task, settings
        self._records, self._images = records, images
        self.header = PartHeader(task.origin)
        self._cache: OrderedDict[Any, tuple[Opened, list[int]]] = OrderedDict()
        self._left_out: Counter[str] = Counter()
        self._flagged: Counter[str] = Counter()

    def make(self, reader: RowReader) -> None:
        """Read the rows and write records."""
        task = self._task
        for number, value in reader.rows(task.file.path, task.chunk):
            self.header.rows += 1
            if isinstance(value, Reject):
                self._leave_out(value, number)
                continue
            row = Row(value, number, task.name, task.file.subset, self._root, task.box_order)
            try:
                for draft in self._source.drafts(row):
                    if isinstance(draft, Reject):
                        self._leave_out(draft, number)
                    else:
                        self._add(draft, row)
            except Reject as reject:
                self._leave_out(reject, number)
        self.header.left_out = dict(sorted(self._left_out.items()))
        self.header.flagged = dict(sorted(self._flagged.items()))

    def _leave_out(self, reject: Reject, number: int) -> None:
        self._left_out[reject.code] += 1
        if self._left_out[reject.code] <= MAX_EXAMPLES:
            detail = reject.detail.encode(errors="backslashreplace").decode()[:200]
            self.header.examples.append([reject.code, number, detail])

    def _add(self, draft: Draft, row: Row) -> None:
        try:
            opened = [self._opened(image) for image in draft.images]
            record = self._record(draft, row, [image for image, _ in opened])
        except Reject as reject:
            self._leave_out(reject, row.number)
            self._blame(reject, draft)
            return
        line = encode_json({"record": record.to_json(), "images": [place for _, place in opened]})
        self._records.write(line + b"\n")
        self.header.records += 1
        self.header.several_images += len(opened) > 1
        self._flagged.update(record.flags)

    def _opened(self, image: Image) -> tuple[Opened, list[int]]:
        if image not in self._cache:
            opened = open_image(self._root, image, self._settings.max_side, self._settings.jpeg_quality)
            self._cache[image] = opened, [self._images.tell(), len(opened.jpeg)]
            self._images.write(opened.jpeg)
            if len(self._cache) > _CACHED_IMAGES:
                self._cache.popitem(last=False)
        return self._cache[image]

    def _record(self, draft: Draft, row: Row, images: Sequence[Opened]) -> VLMRecord:
        fields = answer_fields(draft, images, self._root, self._settings.max_text)
        group = _group(draft, row)
        suffix = f"-{draft.suffix}" if draft.suffix else ""
        record = VLMRecord(
            key=f"{self._source.name}-{row.subset}-{row.number:08d}{suffix}",
            source=self._source.name,
            subset=row.subset,
            category=draft.category,
            task=draft.task,
            split="val" if is_validation(group, self._settings.val_every) else "train",
            width=images[0].width if images else 0,
            height=images[0].height if images else 0,
            num_images=len(images),
            license=self._source.license,
            orig={
                **draft.orig,
                "file": row.file,
                "row": row.number,
                "group": group,
                "scale": draft.scale,
                "box_order": draft.box_order if draft.kind == "box" else None,
                "image_sha256": images[0].sha256 if images else None,
                **_further_images(draft, images),
            },
            **fields,
        )
        try:
            record.check()
        except DataError as error:
            raise Reject("answer_format", error.message[:200]) from error
        return record

    def _blame(self, reject: Reject, draft: Draft) -> None:
        if reject.code not in _OF_FILES:
            return
        if reject.code == "mask_missing":
            names = [draft.mask if isinstance(draft.mask, str) else None]
        else:
            names = [getattr(image, "path", None) for image in draft.images]
            for image in draft.images:
                names += image.alternatives if isinstance(image, ImageFile) else ()
        self.header.blamed += [_state(self._root, name) for name in names if name]


def _further_images(draft: Draft, images: Sequence[Opened]) -> dict[str, Any]:
    """Name and sha256 of each image after the first, under `further_images`; nothing if there is none."""
    names = [image.name if isinstance(image, ImageBytes) else image.path for image in draft.further_images]
    further = [{"name": name, "sha256": each.sha256} for name, each in zip(names, images[1:], strict=True)]
    return {"further_images": further} if further else {}


def _state(root: Path, name: str) -> list[Any]:
    try:
        status = (root / name).stat()
    except (OSError, ValueError):
        return [name, None, None]
    return [name, status.st_size, status.st_mtime_ns]


def _group(draft: Draft, row: Row) -> str:
    """What must not be divided between splits: the image, the first of several, or a group that the source names."""
    if "group" in draft.orig:
        return str(draft.orig["group"])
    image = draft.image
    if image is None or isinstance(image, ImageBytes):
        return f"{row.file}:{row.number}"
    return image.path


def is_validation(group: str, every: int) -> bool:
    """Whether a group is of the split `val`: a pure function of its name."""
    return every > 0 and xxhash.xxh3_64_intdigest(group.encode(errors="surrogateescape")) % every == 0


def usable(folder: Path, number: int, task: Task, root: Path) -> bool:
    """Whether the part of a chunk is there, of these rows, and no file that it lacked has changed since."""
    if not part_folder(folder, number).is_dir():
        return False
    try:
        header = read_header(folder, number)
    except DataError:
        return False
    unchanged = all(_state(root, name) == [name, size, time] for name, size, time in header.blamed)
    return header.origin == task.origin and unchanged and "crashed" not in header.left_out


def read_header(folder: Path, number: int) -> PartHeader:
    """The counts of a part. Raises DataError if it is damaged."""
    path = part_folder(folder, number)
    try:
        return PartHeader(**read_json(path / HEADER))
    except TypeError as error:
        raise DataError(f"{path} is damaged ({error}).", f"Remove {path}. {AGAIN}") from error


def read_part(folder: Path, number: int) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """(record as JSON, its JPEGs) of a part, in order. Raises DataError if it is damaged."""
    path = part_folder(folder, number)
    try:
        with (path / RECORDS).open("rb") as lines, (path / IMAGES).open("rb") as images:
            for line in lines:
                content = json.loads(line)
                jpegs = []
                for offset, size in content["images"]:
                    images.seek(offset)
                    jpegs.append(images.read(size))
                    if len(jpegs[-1]) != size:
                        raise ValueError(f"{IMAGES} ends too early")
                yield content["record"], jpegs
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}).", f"Remove {path}. {AGAIN}") from error
