"""The samples of a mixture, read from its inputs and changed as the recipe says, in parts, by several processes.

1000003/records.jsonl    a record, and by extension where its other members are in members.bin, per line; one of
                         several questions has the members of the first
1000003/members.bin      images and masks
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pokevla.data.conversion.unfinished import AGAIN, new_part, part_folder
from pokevla.data.dataset import Dataset
from pokevla.data.mixing.choices import read_choice, reordered
from pokevla.data.mixing.joining import joined_record
from pokevla.data.mixing.scanning import Opened
from pokevla.data.reader import ShardReader
from pokevla.data.records import format_points
from pokevla.data.screening.scanning import read_record
from pokevla.data.writer import encode_json
from pokevla.errors import DataError, EnvironmentSetupError

RECORDS, MEMBERS = "records.jsonl", "members.bin"
FIRST_PART = 1_000_000
"""Number of the first part with samples; smaller ones are those of the scan."""


@dataclass(frozen=True)
class Drawn:
    """The samples of one dataset to write, in order, as columns of their questions."""

    name: str
    inputs: np.ndarray  # (n,) int16
    rows: np.ndarray  # (n,) int64, in the input
    letters: np.ndarray  # (n,) int8: where the right option goes, -1: nowhere
    starts: np.ndarray  # (samples + 1,) int64: the first question of each sample, and the end

    def __len__(self) -> int:
        return len(self.starts) - 1

    def stop(self, first: int, questions: int) -> int:
        """The end of as many samples from the first as have so many questions, at least one sample."""
        end = int(np.searchsorted(self.starts, self.starts[first] + questions, side="right")) - 1
        return max(end, first + 1)


@dataclass(frozen=True)
class Part:
    """Consecutive samples of one dataset."""

    number: int
    which: int
    """Number of the dataset in `DrawWork.drawn`."""
    first: int
    stop: int
    questions: int


@dataclass(frozen=True)
class DrawWork:
    """What each process does to read the samples that are taken (`pokevla.data.conversion.workers.Work`)."""

    inputs: Sequence[Opened]
    drawn: Sequence[Drawn]
    part_questions: int
    """Their records are in memory at once, their images are not."""
    max_points: int | None
    seed: int
    folder: Path

    def parts(self) -> list[Part]:
        """All parts, in order."""
        found: list[Part] = []
        for which, each in enumerate(self.drawn):
            first = 0
            while first < len(each):
                stop = each.stop(first, self.part_questions)
                questions = int(each.starts[stop] - each.starts[first])
                found.append(Part(FIRST_PART + len(found), which, first, stop, questions))
                first = stop
        return found

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], None]]:
        """Opens each input when its first sample comes."""
        parts = {part.number: part for part in self.parts()}
        datasets: dict[int, tuple[Dataset, ShardReader]] = {}
        with ExitStack() as stack:

            def reader(number: int) -> tuple[Dataset, ShardReader]:
                if number not in datasets:
                    dataset = self.inputs[number].dataset()
                    datasets[number] = dataset, ShardReader(dataset)
                    stack.callback(datasets[number][1].close)
                return datasets[number]

            def make(number: int) -> None:
                self._make(parts[number], reader)

            yield make

    def crashed(self, number: int, problem: str) -> None:
        """Nothing is decoded here, so it is a fault of the machine."""
        raise EnvironmentSetupError(f"A process that read samples for part {number} died: {problem}.", AGAIN)

    def _make(self, part: Part, reader: Callable[[int], tuple[Dataset, ShardReader]]) -> None:
        drawn = self.drawn[part.which]
        starts = drawn.starts[part.first : part.stop + 1].tolist()
        chosen = slice(starts[0], starts[-1])
        columns = (drawn.inputs[chosen].tolist(), drawn.rows[chosen].tolist(), drawn.letters[chosen].tolist())
        lines: list[bytes] = [b""] * len(columns[0])
        places: dict[int, dict[str, list[int]]] = {start - starts[0]: {} for start in starts[:-1]}
        with new_part(self.folder, part.number) as new:
            with (new / MEMBERS).open("xb") as others:
                # In the order of the inputs, so that each shard and its index are opened once.
                for place in sorted(range(len(lines)), key=lambda n: (columns[0][n], columns[1][n])):
                    dataset, shards = reader(columns[0][place])
                    row = columns[1][place]
                    members, key = shards.read(row), dataset.rows.text("key", row)
                    lines[place] = encode_json(self._changed(read_record(members, key), columns[2][place]))
                    for extension in sorted(members.keys() - {"json"}) if place in places else ():
                        places[place][extension] = [others.tell(), len(members[extension])]
                        others.write(members[extension])
            with (new / RECORDS).open("xb") as records:
                for start, end in pairwise(start - starts[0] for start in starts):
                    record = joined_record([json.loads(line) for line in lines[start:end]])
                    records.write(encode_json({"record": record, "members": places[start]}) + b"\n")

    def _changed(self, record: dict[str, Any], place: int) -> dict[str, Any]:
        if place >= 0:
            choice = read_choice(record)
            if choice is None or place >= len(choice.texts):
                raise DataError(f"sample {record['key']} is not the one that was read before.", "Start again.")
            record = reordered(record, choice, place, self.seed)
        if self.max_points is not None:
            record = thinned(record, self.max_points, self.seed)
        return record


def thinned(record: dict[str, Any], most: int, seed: int) -> dict[str, Any]:
    """The record with at most `most` points in its answer, drawn from seed and key, in their order.

    `orig.points` is how many there were. Other answers than points stay as they are.
    """
    points = record["target"].get("points") or []
    if record["answer_kind"] != "point" or len(points) <= most:
        return record
    hashes = [xxhash.xxh3_64_intdigest(f"{record['key']}\0{n}".encode(), seed % 2**64) for n in range(len(points))]
    drawn = sorted(range(len(points)), key=hashes.__getitem__)
    kept = [points[number] for number in sorted(drawn[:most])]
    return {
        **record,
        "answer": format_points(kept),
        "target": {**record["target"], "points": kept},
        "orig": {**(record.get("orig") or {}), "points": len(points)},
    }


def read_drawn(folder: Path, number: int) -> Iterator[tuple[dict[str, Any], dict[str, bytes]]]:
    """(record as JSON, other members by extension) of a part, in order. Raises DataError if it is damaged."""
    path = part_folder(folder, number)
    try:
        with (path / RECORDS).open("rb") as lines, (path / MEMBERS).open("rb") as others:
            for line in lines:
                content = json.loads(line)
                members: dict[str, bytes] = {}
                for extension, (offset, size) in content["members"].items():
                    others.seek(offset)
                    members[extension] = others.read(size)
                    if len(members[extension]) != size:
                        raise ValueError(f"{MEMBERS} ends too early")
                yield content["record"], members
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error}).", f"Remove {path}. {AGAIN}") from error


def is_drawn(folder: Path, number: int) -> bool:
    """Whether a part is there: it is complete or absent."""
    return (part_folder(folder, number) / RECORDS).is_file()
