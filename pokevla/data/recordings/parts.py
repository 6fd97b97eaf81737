"""Finished episodes of a conversion that has not ended: a killed conversion goes on after them.

.unfinished-NAME/            beside the dataset NAME, until it is complete
    settings.json            what a part depends on; parts of another conversion are removed
    000003/frames.bin        the JPEGs of episode 3: those of the first frame, in the order of the views, and so on
    000003/numbers.npz       offsets, actions, proprio
    000003/episode.json      the rest, or why the episode cannot be used
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.recordings.faults import Finding
from pokevla.errors import DataError, EnvironmentSetupError
from pokevla.files.ownership import refuse_foreign
from pokevla.files.texts import read_json, write_json
from pokevla.files.writing import atomic_folder

FRAMES, NUMBERS, REST = "frames.bin", "numbers.npz", "episode.json"
_SETTINGS = "settings.json"
AGAIN = "Run the same command again."


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


def part_folder(folder: Path, number: int) -> Path:
    """Where the part of an episode lies."""
    return folder / f"{number:06d}"


def begun_folder(out: Path, identity: dict[str, Any], *, shared: bool = False) -> Path:
    """The folder of the parts of `out`, emptied if its parts were made with another `identity`.

    Args:
        shared: other processes may be using the folder: parts of another identity are refused, not removed.

    Raises:
        DataError: something in the folder was not written by a conversion, or writing failed; or see `shared`.
    """
    folder = out.with_name(f".unfinished-{out.name}")
    identity = json.loads(json.dumps(identity))
    if folder.exists() and _settings(folder) != identity:
        if shared:
            raise DataError(f"{folder} holds episodes converted with other options.", "Remove it, or use its options.")
        forget(folder)
    if not folder.exists():
        write_json(folder / _SETTINGS, identity)
    return folder


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


def forget(folder: Path) -> None:
    """Remove the parts. Raises DataError if anything else lies in the folder."""
    patterns = [_SETTINGS, ".tmp-**", *(f"*/{name}" for name in (FRAMES, NUMBERS, REST))]
    refuse_foreign(folder, "unfinished conversion", patterns)
    shutil.rmtree(folder)


def _settings(folder: Path) -> Any:
    try:
        return read_json(folder / _SETTINGS)
    except DataError:  # missing or damaged: parts of an unknown conversion are not used
        return None


@contextmanager
def new_part(folder: Path, number: int) -> Iterator[Path]:
    """Yield the folder of a new part, which is there complete or not at all.

    Raises:
        DiskFullError: disk full.
        EnvironmentSetupError: writing failed otherwise.
    """
    with atomic_folder(part_folder(folder, number), kind=EnvironmentSetupError) as new:
        yield new


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
