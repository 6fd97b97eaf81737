"""Opens the files of published weights: names, shapes and types of all tensors, whose values stay on disk.

Nothing in a file is executed. Safetensors and the archives of `torch.save` are read, alone or in shards with an index.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pokevla.errors import CheckpointError
from pokevla.files.foreign.torch_archives import UNREADABLE, StoredTensor, is_archive, read_archive
from pokevla.files.labels import lies_within
from pokevla.files.texts import read_json_object

INDEX_SUFFIX = ".index.json"
MAX_DEPTH = 6
"""Deepest nesting of mappings and lists in a torch file. Prismatic's has two levels, and its optimizer four."""
MAX_ENTRIES = 100_000
_COPY_AGAIN = "Download or copy it again."
_NOT_WEIGHTS = "Give a file of weights."
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class WeightFiles:
    """Where the tensors of a layout lie, and how an export writes them.

    Attributes:
        names: patterns below the folder, best first. The first that finds a file is read; one that ends in .index.json
            lists the shards. The first name is the one that is written: .safetensors, or a file of `torch.save`.
        prefix: put before the names of its tensors, so that the files of a layout do not collide.
        required: whether the layout needs this file.
        nesting: levels of mappings in which a file of `torch.save` holds its tensors. Names are joined with dots:
            {"model": {"projector": {"0.weight": ...}}} holds model.projector.0.weight and has two levels above it.
    """

    names: tuple[str, ...]
    prefix: str = ""
    required: bool = True
    nesting: int = 0


SAFETENSORS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""`WeightFiles.names` of a folder that transformers or timm has written."""


@dataclass(frozen=True)
class Source:
    """Published files of one layout, opened."""

    place: Path  # as given, for messages
    layout: str
    tensors: Mapping[str, StoredTensor]
    others: Mapping[str, str] = field(default_factory=dict)  # entries that are not tensors: name -> type
    files: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that was given, or the one of the file."""
        return self.place if self.place.is_dir() else self.place.parent

    def has_config(self, name: str = "config.json") -> bool:
        """Whether `read_config` finds a file."""
        return self._config_path(name).is_file()

    def read_config(self, name: str = "config.json") -> dict[str, Any]:
        """A JSON file of the folder; for a single file also one folder above it.

        Raises:
            CheckpointError: it is missing or not a JSON object.
        """
        return read_json_object(self._config_path(name), kind=CheckpointError, remedy="Copy it beside the weights.")

    def _config_path(self, name: str) -> Path:
        above = self.folder.parent / name
        is_above = not self.place.is_dir() and not (self.folder / name).is_file() and above.is_file()
        return above if is_above else self.folder / name


def find_files(place: Path, wanted: Sequence[WeightFiles]) -> list[tuple[WeightFiles, Path]] | None:
    """The files of a layout below a folder, or the one file that was given; None if a required one is missing."""
    if not place.is_dir():
        required = [files for files in wanted if files.required]
        return [(required[0], place)] if len(required) == 1 else None
    found = []
    for files in wanted:
        path = next((path for name in files.names for path in sorted(place.glob(name)) if path.is_file()), None)
        if path is not None:
            found.append((files, path))
        elif files.required:
            return None
    return found


def open_files(place: Path, layout: str, files: Sequence[tuple[WeightFiles, Path]]) -> Source:
    """Open the files that `find_files` found.

    Raises:
        CheckpointError: one is missing, damaged, names a class or holds no tensors; a shard differs from its index.
    """
    tensors: dict[str, StoredTensor] = {}
    others: dict[str, str] = {}
    read: list[Path] = []
    for kind, path in files:
        for one in _shards(path) if path.name.endswith(INDEX_SUFFIX) else [path]:
            for name, value in entries_of(one).items():
                if isinstance(value, StoredTensor):
                    tensors[kind.prefix + name] = value
                else:
                    others[kind.prefix + name] = value
            read.append(one)
        if path.name.endswith(INDEX_SUFFIX):
            _compare_with_index(path, kind.prefix, tensors)
    return Source(place, layout, tensors, others, tuple(read))


def entries_of(path: Path) -> dict[str, StoredTensor | str]:
    """Everything in a file of weights by dotted name: a tensor, or the type of what is not one.

    Raises:
        CheckpointError: the file is missing, damaged, names a class, or is not a mapping that holds tensors.
    """
    try:
        entries = dict(islice(_flat(_content(path), "", path), MAX_ENTRIES + 1))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist.", "Check the path.") from error
    except (*UNREADABLE, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} cannot be read safely: {reason}.", _COPY_AGAIN) from error
    if len(entries) > MAX_ENTRIES:  # mappings that share their contents could unfold into any number
        raise CheckpointError(f"{path} is not a state dict: it has more than {MAX_ENTRIES} entries.", _NOT_WEIGHTS)
    if not any(isinstance(value, StoredTensor) for value in entries.values()):
        raise CheckpointError(f"{path} is not a state dict: it holds no tensors.", _NOT_WEIGHTS)
    return entries


def _content(path: Path) -> Any:
    if is_archive(path):
        return read_archive(path, {})
    if path.suffix != ".safetensors":
        raise ValueError("it is neither safetensors nor an archive of torch.save (torch 1.6 or newer)")
    with safe_open(path, framework="pt"):  # checks that types, shapes and offsets fit the file
        pass
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: StoredTensor(path, 8 + length + entry["data_offsets"][0], tuple(entry["shape"]), _dtype(name, entry))
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _dtype(name: str, entry: Mapping[str, Any]) -> torch.dtype:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"{name} has the type {entry['dtype']}, which is not supported")
    return _DTYPES[entry["dtype"]]


def _flat(value: Any, name: str, path: Path, depth: int = 0) -> Iterator[tuple[str, StoredTensor | str]]:
    if isinstance(value, StoredTensor):
        yield name, value
    elif isinstance(value, Mapping | list | tuple) and (value or depth == 0):
        if depth > MAX_DEPTH:
            raise CheckpointError(f"{path} is not a state dict: {name[:80]} is nested too deeply.", _NOT_WEIGHTS)
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in items:
            yield from _flat(inner, f"{name}.{key}" if name else str(key), path, depth + 1)
    else:
        yield name, type(value).__name__


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json_object(index, kind=CheckpointError, remedy=_COPY_AGAIN)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index} has no `weight_map` from names to files.", _COPY_AGAIN)
    if outside := [name for name in weight_map.values() if not lies_within(name)]:
        raise CheckpointError(f"{index} names the file {outside[0]!r}, which does not lie in its folder.", _COPY_AGAIN)
    return weight_map


def _shards(index: Path) -> list[Path]:
    return [index.parent / name for name in sorted(set(_weight_map(index).values()))]


def _compare_with_index(index: Path, prefix: str, tensors: Mapping[str, StoredTensor]) -> None:
    for name, file in _weight_map(index).items():
        found = tensors.get(prefix + name)
        if found is None or found.path.name != Path(file).name:
            raise CheckpointError(f"{index.parent / file} lacks {name}, which {index.name} lists there.", _COPY_AGAIN)
