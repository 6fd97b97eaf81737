"""What a mixture has to know of each sample of its inputs, read once, in parts, by several processes.

000003/samples.arrow     a row per sample of a few shards; the texts that classes stand for are in its metadata
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from pokevla.data.conversion.unfinished import AGAIN, new_part, part_folder
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.mixing.choices import LETTERS, read_choice, yes_or_no
from pokevla.data.reader import REMEDY, dataset_shards
from pokevla.data.screening.scanning import read_record
from pokevla.errors import DamagedDataError, DataError, EnvironmentSetupError
from pokevla.shards.index import IndexEntry

SAMPLES_NAME = "samples.arrow"
CHUNK_SAMPLES = 1 << 14
"""A part has as many shards as hold about so many samples."""
YES, NO = 1, 2
_CLASSES = b"classes"
_SCHEMA = pa.schema(
    [
        ("id", pa.uint64()),  # keyed hash of the key
        ("kind", pa.int32()),  # number in the list of classes
        ("image", pa.uint64()),  # hash of the image, the first of several; of the key for a sample without
        ("group", pa.uint64()),  # hash of the group that the source names; of the image if it names none
        ("run", pa.uint64()),  # hash of file and question
        ("word", pa.int8()),  # YES, NO or 0
        ("options", pa.int8()),  # number of options that can change places; 0: none
        ("letter", pa.int8()),  # number of the right letter, -1: no multiple-choice question
        ("points", pa.int16()),
    ]
)


class SampleClass(NamedTuple):
    """By what samples are counted and chosen."""

    category: str
    source: str
    task: str
    answer_kind: str
    split: str


@dataclass(frozen=True)
class Chunk:
    """Consecutive shards of one input."""

    dataset: int
    first: int
    """Number of the first shard."""
    stop: int
    samples: int


def chunks_of(datasets: Sequence[Dataset], chunk_samples: int = CHUNK_SAMPLES) -> list[Chunk]:
    """All shards of all inputs, in order, some in each chunk."""
    chunks = []
    for place, dataset in enumerate(datasets):
        starts, first = dataset.rows.shard_starts, 0
        for stop in range(1, len(starts)):
            samples = int(starts[stop] - starts[first])
            if samples >= chunk_samples or stop == len(starts) - 1:
                chunks.append(Chunk(place, first, stop, samples))
                first = stop
    return chunks


@dataclass(frozen=True)
class Opened:
    """An input as a process opens it again: it has to be the one that was planned with."""

    path: Path
    fingerprint: str

    def dataset(self) -> Dataset:
        """The dataset. Raises DataError if it is damaged or another one."""
        dataset = open_dataset(self.path, mapped=True)
        if dataset.fingerprint != self.fingerprint:
            raise DataError(
                f"{self.path} was replaced while the mixture was made: its fingerprint is {dataset.fingerprint[:12]}, "
                f"it was {self.fingerprint[:12]}.",
                "Do not convert a source anew while it is read, and start again.",
            )
        return dataset


@dataclass(frozen=True)
class ScanWork:
    """What each process does to read the inputs (`pokevla.data.conversion.workers.Work`)."""

    inputs: Sequence[Opened]
    chunks: Sequence[Chunk]
    seed: int
    folder: Path

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], None]]:
        """Opens each input when its first chunk comes."""
        datasets: dict[int, Dataset] = {}

        def make(number: int) -> None:
            chunk = self.chunks[number]
            if chunk.dataset not in datasets:
                datasets[chunk.dataset] = self.inputs[chunk.dataset].dataset()
            with new_part(self.folder, number) as new:
                table = _scanned(datasets[chunk.dataset], chunk, self.seed)
                with pa.OSFile(str(new / SAMPLES_NAME), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                    writer.write_table(table)

        yield make

    def crashed(self, number: int, problem: str) -> None:
        """A process that dies while it reads JSON is a fault of the machine, so nothing is left out for it."""
        chunk = self.chunks[number]
        raise EnvironmentSetupError(
            f"A process that read shards {chunk.first} to {chunk.stop - 1} of {self.inputs[chunk.dataset].path} died: "
            f"{problem}.",
            AGAIN,
        )


def _scanned(dataset: Dataset, chunk: Chunk, seed: int) -> pa.Table:
    classes: dict[SampleClass, int] = {}
    columns: dict[str, list[int]] = {name: [] for name in _SCHEMA.names}
    with ExitStack() as stack:
        shards = dataset_shards(dataset)
        stack.callback(shards.close)
        for name in dataset.shard_names[chunk.first : chunk.stop]:
            for entry in shards.index(name):
                text = tuple(each for each in entry.members if each.extension == "json")
                if not text:
                    raise DamagedDataError(f"sample {entry.key} of {dataset.root} has no member json.", REMEDY)
                record = read_record(shards.read_sample(name, IndexEntry(entry.key, text)), entry.key)
                image = next((each.checksum for each in entry.members if each.extension == "jpg"), None)
                values = _values(record, entry.key, image, seed)
                kind = classes.setdefault(_class_of(record, entry.key), len(classes))
                for column, value in zip(_SCHEMA.names, (values[0], kind, *values[1:]), strict=True):
                    columns[column].append(value)
    if len(columns["id"]) != chunk.samples:
        raise DataError(
            f"Shards {chunk.first} to {chunk.stop - 1} of {dataset.root} have {len(columns['id'])} samples, "
            f"samples.parquet says {chunk.samples}.",
            REMEDY,
        )
    listed = json.dumps([list(each) for each in classes]).encode()
    return pa.table(columns, _SCHEMA.with_metadata({_CLASSES: listed}))


def _class_of(record: Mapping[str, Any], key: str) -> SampleClass:
    values = [record.get(name) for name in SampleClass._fields]
    if not all(isinstance(value, str) and value for value in values):
        absent = next(n for n, v in zip(SampleClass._fields, values, strict=True) if not (isinstance(v, str) and v))
        raise DamagedDataError(f"sample {key} has no {absent}.", "Convert the dataset again.")
    return SampleClass(*map(str, values))


def _values(record: dict[str, Any], key: str, image: int | None, seed: int) -> tuple[int, ...]:
    """What `_SCHEMA` has but the number of the class."""
    orig = record.get("orig") or {}
    own = _hash(key)
    image = own if image is None else image
    group = orig.get("group")
    letter = record["target"].get("choice")
    choice = read_choice(record)
    word = yes_or_no(record, choice)
    return (
        xxhash.xxh3_64_intdigest(key.encode(), seed=seed % 2**64),
        image,
        _hash(f"{record['source']}\0{group}") if isinstance(group, str) else image,
        _hash(f"{orig.get('file')}\0{record['question']}"),
        YES if word == "yes" else NO if word == "no" else 0,
        len(choice.texts) if choice is not None else 0,
        LETTERS.index(letter) if letter in tuple(LETTERS) else -1,
        min(len(record["target"].get("points") or ()), 2**15 - 1) if record["answer_kind"] == "point" else 0,
    )


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode(errors="surrogateescape"))


def is_scanned(folder: Path, number: int) -> bool:
    """Whether the part of a chunk is there: it is complete or absent."""
    return (part_folder(folder, number) / SAMPLES_NAME).is_file()


def read_scanned(folder: Path, number: int) -> tuple[list[SampleClass], dict[str, np.ndarray]]:
    """(classes, columns) of a part: `id`, `image`, `group`, `run` (n,) uint64; `kind` int32; others small integers.

    Raises DataError if it is damaged.
    """
    path = part_folder(folder, number) / SAMPLES_NAME
    try:
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        classes = [SampleClass(*each) for each in json.loads((table.schema.metadata or {})[_CLASSES])]
        return classes, {name: table[name].to_numpy() for name in _SCHEMA.names}
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}).", f"Remove {path.parent}. {AGAIN}") from error
