"""`dataset_info.json` and `features.json` of a TFDS dataset: its files, and the shapes of a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from pokevla.data.recordings.fields import Column
from pokevla.errors import DataError
from pokevla.files.finding import find_files
from pokevla.files.labels import lies_within
from pokevla.files.texts import read_json

INFO, FEATURES = "dataset_info.json", "features.json"
REMEDY = "Give the folder of a TFDS dataset, with dataset_info.json and features.json."
DEFAULT_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


@dataclass(frozen=True)
class Shard:
    """One TFRecord file."""

    path: Path
    split: str
    num_episodes: int


@dataclass(frozen=True)
class RldsMetadata:
    """A dataset without its episodes. Names are those of a step, such as `observation/state`."""

    root: Path
    name: str
    shards: tuple[Shard, ...]
    columns: dict[str, Column]
    """Arrays of numbers."""
    images: tuple[str, ...]
    texts: tuple[str, ...]


def read_rlds_metadata(source: Path) -> RldsMetadata:
    """Read the metadata of the one dataset in a folder, such as `libero_spatial_no_noops/1.0.0` or the one above.

    Raises:
        DataError: there is none, or several; or it is damaged or in another format. Names the file.
    """
    found = find_files(source, INFO).files
    if len(found) != 1:
        raise DataError(
            f"{source} holds {len(found)} datasets: {', '.join(str(path.parent) for path in found)}.", REMEDY
        )
    root = found[0].parent
    info, features = read_json(root / INFO, remedy=REMEDY), read_json(root / FEATURES, remedy=REMEDY)
    try:
        name = str(info["name"])
        if info.get("fileFormat", "tfrecord") != "tfrecord":
            raise DataError(f"{root / INFO}: its files are of the format {info['fileFormat']}, not tfrecord.", REMEDY)
        shards = tuple(_shards(root, name, info["splits"]))
        steps = features["featuresDict"]["features"]["steps"]["sequence"]["feature"]
        leaves = dict(_leaves(steps))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{root}: {INFO} or {FEATURES} is damaged: {error!r}.", REMEDY) from error
    return RldsMetadata(
        root=root,
        name=name,
        shards=shards,
        columns={key: Column(prod(_shape(leaf))) for key, leaf in leaves.items() if "tensor" in leaf},
        images=tuple(key for key, leaf in leaves.items() if "image" in leaf),
        texts=tuple(key for key, leaf in leaves.items() if "text" in leaf),
    )


def _shards(root: Path, name: str, splits: list[dict[str, Any]]) -> Iterator[Shard]:
    for split in splits:
        lengths = [int(length) for length in split["shardLengths"]]
        template = str(split.get("filepathTemplate") or DEFAULT_TEMPLATE)
        for number, length in enumerate(lengths):
            relative = template.format(
                DATASET=name,
                SPLIT=split["name"],
                FILEFORMAT="tfrecord",
                SHARD_INDEX=f"{number:05d}",
                NUM_SHARDS=f"{len(lengths):05d}",
                SHARD_X_OF_Y=f"{number:05d}-of-{len(lengths):05d}",
            )
            if not lies_within(relative):
                raise ValueError(f"the path {relative} leads out of the dataset")
            yield Shard(root / relative, str(split["name"]), length)


def _leaves(feature: dict[str, Any], name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, description) of every feature of a step; nested names are joined by `/`, as in the examples."""
    if "featuresDict" in feature:
        for key, each in feature["featuresDict"]["features"].items():
            yield from _leaves(each, f"{name}/{key}" if name else key)
    else:
        yield name, feature


def _shape(leaf: dict[str, Any]) -> tuple[int, ...]:
    """Shape of one step's tensor; a scalar has none."""
    encoding = leaf["tensor"].get("encoding", "none")
    if encoding not in ("none", "NONE", None):
        return (0,)  # bytes of numpy or zlib, which nothing is made of here
    return tuple(int(size) for size in (leaf["tensor"].get("shape") or {}).get("dimensions", ()))
