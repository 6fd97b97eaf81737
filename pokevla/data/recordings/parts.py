"""Finished episodes of a conversion that has not ended (`pokevla.data.conversion.unfinished`).

000003/frames.bin        the JPEGs of episode 3: those of the first frame, in the order of the views, and so on
000003/numbers.npz       offsets, actions, proprio
000003/episode.json      the rest, or why the episode cannot be used
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.conversion.unfinished import AGAIN, part_folder
from pokevla.data.recordings.faults import Finding
from pokevla.errors import DataError
from pokevla.files.texts import read_json

FRAMES, NUMBERS, REST = "frames.bin", "numbers.npz", "episode.json"
NAMES = tuple(f"*/{name}" for name in (FRAMES, NUMBERS, REST))
"""What a conversion writes into its unfinished folder."""


@dataclass(frozen=True)
class PartHeader:
    """A converted episode without its images, or why there is none."""

    instruction: str
    split: str | None
    sizes: dict[str, list[int]]
    """View -> height and width of its source images."""
    findings: tuple[Finding, ...]
    origin: Any
    """What of the source it was made of (`Source.episode_identity`), to notice that this has changed."""
    refused: bool = False
    """Whether the last finding is why the episode is left out."""
    remedy: str | None = None
    """What the user can do about that."""


@dataclass(frozen=True)
class Part:
    """A stored part."""

    folder: Path
    header: PartHeader
    actions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    proprio: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    offsets: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """(T,V+1): where the JPEGs of a frame begin and end in `frames.bin`."""

    def frames(self) -> Iterator[list[bytes]]:
        """The JPEGs of each frame, in the order of the views."""
        with (self.folder / FRAMES).open("rb") as file:
            for row in self.offsets:
                yield [file.read(int(end - begin)) for begin, end in pairwise(row)]


def usable_parts(folder: Path, origins: Iterable[tuple[int, Any]]) -> set[int]:
    """Numbers of the given episodes (number, origin) whose parts can be used. Others, which are of changed or unusable
    recordings, are removed, so that they are made again."""
    numbers = set()
    for number, origin in origins:
        path = part_folder(folder, number)
        if not path.is_dir():
            continue
        try:
            header = read_part(folder, number).header
            usable = not header.refused and header.origin == json.loads(json.dumps(origin))
        except DataError:
            usable = False
        if usable:
            numbers.add(number)
        else:
            shutil.rmtree(path)
    return numbers


def finish_part(new: Path, header: PartHeader, actions: np.ndarray, proprio: np.ndarray, offsets: np.ndarray) -> None:
    """Write everything but `FRAMES` into the folder of a new part."""
    with (new / NUMBERS).open("xb") as file:
        np.savez(file, actions=actions, proprio=proprio, offsets=offsets)
    write_header(new, header)


def write_header(new: Path, header: PartHeader) -> None:
    """Write the header into the folder of a new part: all that a refused episode has."""
    content = {**vars(header), "findings": [vars(finding) for finding in header.findings]}
    (new / REST).write_text(json.dumps(content), encoding="utf-8")


def read_part(folder: Path, number: int) -> Part:
    """A stored part. Raises DataError if it is damaged."""
    path = part_folder(folder, number)
    try:
        content = read_json(path / REST)
        findings = tuple(Finding(**finding) for finding in content.pop("findings"))
        header = PartHeader(**content, findings=findings)
        if header.refused:
            return Part(path, header)
        with np.load(path / NUMBERS, allow_pickle=False) as stored:
            part = Part(path, header, stored["actions"], stored["proprio"], stored["offsets"])
        if (path / FRAMES).stat().st_size != int(part.offsets[-1, -1]):
            raise ValueError(f"{FRAMES} has another size than its offsets say")
        return part
    except (DataError, OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}).", f"Remove {path}. {AGAIN}") from error
