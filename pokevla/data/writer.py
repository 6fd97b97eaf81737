"""Writes a dataset directory under a temporary name, syncs it to disk and renames it.

The bytes depend on the content only (no times, no paths), so two conversions of the same input are identical.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pokevla.data.dataset import SHARDS_NAME, refuse_output, refuse_replacing_dataset
from pokevla.data.records import MAX_IMAGES, image_names
from pokevla.data.tables.opening import write_twins
from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.finite import refuse_bad_rows
from pokevla.embodiment.libero import LIBERO
from pokevla.embodiment.reading import KEY
from pokevla.errors import DataError
from pokevla.files.checksums import measure_file, with_checksum
from pokevla.files.labels import name_problem
from pokevla.files.ownership import Ownership
from pokevla.files.writing import atomic_folder
from pokevla.recipe.checking.datasets import (
    ALL_SPLITS,
    EPISODES_NAME,
    INFO_NAME,
    SAMPLES_NAME,
    SCHEMA_VERSION,
)
from pokevla.shards.index import dump_index, index_checksum, index_path
from pokevla.shards.shard_writer import WEBDATASET_HEADER, ShardWriter

REMEDY = "Free some space or choose another disk."


def encode_json(value: Any) -> bytes:
    """Encode JSON in a canonical form: sorted keys, no spaces, UTF-8. Raises DataError for NaN and infinities."""
    return _json_text(value, separators=(",", ":"), ensure_ascii=False).encode()


def _json_text(value: Any, **form: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, **form)
    except ValueError as error:
        raise DataError(f"a value cannot be stored as JSON: {error}.", "Repair the source.") from error


class ShardFile:
    """One tar in WebDataset format, and the index file beside it."""

    def __init__(self, path: Path) -> None:
        """Open `path` for writing. It must not exist."""
        self.path = path
        self._file = path.open("xb")
        self._writer = ShardWriter(self._file, WEBDATASET_HEADER)

    @property
    def num_samples(self) -> int:
        """Number of samples written so far."""
        return len(self._writer.entries)

    def write(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append one sample: members by extension, in sorted order."""
        self._writer.write(key, members)

    def close(self) -> dict[str, Any]:
        """Finish the shard and its index. Returns the entry of the shard in `dataset.json`."""
        self._writer.close()
        self._file.close()
        text = dump_index(self._writer.entries).encode()
        index_path(self.path).write_bytes(text)
        return {
            "samples": self.num_samples,
            "size_bytes": self.path.stat().st_size,
            "index_xxh64": index_checksum(text),
        }

    def abandon(self) -> None:
        """Close the file after an error. The caller deletes it."""
        with suppress(OSError):
            self._file.close()


class _Table:
    """A parquet file, written in row groups as rows arrive."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._file = path.open("xb")
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")
        self.num_rows = 0

    def add(self, row: dict[str, Any]) -> None:
        """Append a row. It is written with the next row group."""
        self._rows.append(row)
        self.num_rows += 1

    def flush(self) -> None:
        """Write the pending rows as one row group."""
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def close(self) -> None:
        """Write the pending rows and finish the file."""
        self.flush()
        self._writer.close()
        self._file.close()

    def abandon(self) -> None:
        """Close the file after an error. The caller deletes it."""
        with suppress(OSError):
            self._writer.close()
        with suppress(OSError):
            self._file.close()


class DatasetWriter:
    """Writes one dataset directory. Use it as a context manager: an error leaves nothing under the final name."""

    def __init__(
        self,
        out: Path,
        *,
        group: str,
        samples: pa.Schema,
        episodes: pa.Schema | None = None,
        embodiment: Embodiment | None = None,
        shard_samples: int = 256,
        overwrite: bool = False,
    ) -> None:
        """`group` is the prefix of the shard names. `embodiment` is the robot of demonstrations, None for questions.

        Raises what `refuse_output` raises; a converter calls that first, with its sources.
        """
        refuse_output(out, (), overwrite=overwrite)
        self.out, self.group, self.embodiment = out, group, embodiment
        self.shard_samples, self._overwrite = shard_samples, overwrite
        self._schemas = (samples, episodes)
        self._shards: dict[str, dict[str, Any]] = {}
        self._shard: ShardFile | None = None
        self._samples: _Table | None = None
        self._episodes: _Table | None = None
        self._fields: set[str] | None = None
        self._num_images = 0
        self._finished = False
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        proof: Ownership | None = refuse_replacing_dataset if self._overwrite else None
        self._folder = self._stack.enter_context(atomic_folder(self.out, replaces=proof, remedy=REMEDY))
        try:
            (self._folder / SHARDS_NAME).mkdir()
            samples, episodes = self._schemas
            self._samples = _Table(self._folder / SAMPLES_NAME, samples)
            self._episodes = _Table(self._folder / EPISODES_NAME, episodes) if episodes is not None else None
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None and self._finished:
            return
        for part in (self._shard, self._samples, self._episodes):
            if part is not None:
                part.abandon()
        unfinished = error or RuntimeError("DatasetWriter.finish was not called")
        self._stack.__exit__(type(unfinished), unfinished, trace)

    def add_sample(self, key: str, members: Mapping[str, bytes], row: dict[str, Any]) -> None:
        """Append one sample; `row` goes to samples.parquet with `key` and `shard` added.

        Raises DataError if its split has no proper name, a robot sample lacks the image of a view, its proprio has the
        wrong width, or a question does not have the images that its `num_images` says, if the table has that column.
        """
        if self._samples is None:
            raise RuntimeError("DatasetWriter is used outside its `with` block")
        if "split" in row:
            _check_split(row["split"], key)
        if self.embodiment is not None:
            _check_sample(self.embodiment, key, members, row)
        elif "num_images" in self._schemas[0].names:
            _check_images(row["num_images"], key, members)
            self._num_images += row["num_images"]
        if self._shard is None:
            name = f"{self.group}-{len(self._shards):05d}.tar"
            self._shard = ShardFile(self._folder / SHARDS_NAME / name)
        self._shard.write(key, members)
        self._fields = set(members) if self._fields is None else self._fields & set(members)
        self._samples.add({"key": key, "shard": len(self._shards), **row})
        if self._shard.num_samples == self.shard_samples:
            self._close_shard()

    def add_episode(self, row: dict[str, Any]) -> None:
        """Append one episode with its full sequences.

        Raises DataError if a sequence does not have the width of the embodiment, or holds a number that is not finite
        or absurd (`pokevla.embodiment.finite`).
        """
        if self._episodes is None or self.embodiment is None:
            raise RuntimeError("this dataset has no episodes")
        actions, proprio = self.embodiment.action_width, self.embodiment.proprio_width
        widths = {"actions": actions, "executed_actions": actions, "proprio": proprio}
        for name, width in widths.items():
            if name in row:
                _check_rows(row[name], width, f"episode {row['episode']}: {name}", self.embodiment)
        self._episodes.add(row)
        self._episodes.flush()

    def _close_shard(self) -> None:
        if self._shard is not None and self._samples is not None:
            self._shards[self._shard.path.name] = self._shard.close()
            self._shard = None
            self._samples.flush()

    def add_file(self, name: str, content: bytes) -> None:
        """Put a small file, which is not part of the data, into the dataset directory."""
        (self._folder / name).write_bytes(content)

    def finish(self, info: dict[str, Any]) -> Path:
        """Close everything, write `dataset.json` (`info` plus counts, shards, fingerprint) and rename into place.

        Raises DataError if there is no sample.
        """
        self._close_shard()
        if self._samples is None or self._samples.num_rows == 0:
            raise DataError(f"nothing to write to {self.out}: the source has no samples.")
        self._samples.close()
        if self._episodes is not None:
            self._episodes.close()
        content = {
            **info,
            "schema_version": SCHEMA_VERSION,
            "kind": "vlm" if self.embodiment is None else "robot",
            "fingerprint": dataset_fingerprint(self._folder, list(self._shards), self.embodiment),
            "num_samples": self._samples.num_rows,
            "num_episodes": self._episodes.num_rows if self._episodes is not None else None,
            "fields": sorted(self._fields or ()),
            "shards": self._shards,
        }
        if "num_images" in self._schemas[0].names:
            content["num_images"] = self._num_images
        if self.embodiment is not None:
            content[KEY] = self.embodiment.to_dict()
        tables = [name for name in (SAMPLES_NAME, EPISODES_NAME) if (self._folder / name).exists()]
        measured = [measure_file(self._folder, name) for name in tables]
        content["tables"] = [asdict(table) for table in measured]
        text = _json_text(with_checksum(content), indent=1)
        (self._folder / INFO_NAME).write_text(text + "\n", encoding="utf-8")
        write_twins(self._folder, {table.name: table for table in measured}, len(self._shards))
        self._stack.close()
        self._finished = True
        return self.out


def dataset_fingerprint(root: Path, shard_names: list[str], embodiment: Embodiment | None) -> str:
    """sha256 (hex) over the shard indices, which hold every member's checksum, the tables and the embodiment.

    LIBERO's description is excluded, so datasets from before embodiments were described keep their fingerprint.
    """
    digest = hashlib.sha256()
    for name in shard_names:
        digest.update(name.encode() + b"\0" + index_path(root / SHARDS_NAME / name).read_bytes())
    for name in (SAMPLES_NAME, EPISODES_NAME):
        if (root / name).exists():
            digest.update(name.encode() + b"\0")
            with (root / name).open("rb") as file:
                while block := file.read(1 << 22):  # a table may be larger than memory
                    digest.update(block)
    if embodiment not in (None, LIBERO):
        digest.update(KEY.encode() + b"\0" + encode_json(embodiment.to_dict()))
    return digest.hexdigest()


def _check_split(split: Any, key: str) -> None:
    problem = "it should be text" if not isinstance(split, str) else name_problem(split)
    if problem is None and split == ALL_SPLITS:
        problem = "it stands for all splits together"
    if problem is not None:
        raise DataError(f"sample {key} is of split {split!r}: {problem}.", "Use `train` or `val`.")


def _check_sample(embodiment: Embodiment, key: str, members: Mapping[str, bytes], row: Mapping[str, Any]) -> None:
    absent = [f"{view}.jpg" for view in embodiment.views if f"{view}.jpg" not in members]
    if absent:
        raise DataError(
            f"sample {key} lacks {', '.join(absent)}: the embodiment {embodiment.name} has the views "
            f"{', '.join(embodiment.views)}.",
            "Give an image of each view.",
        )
    _check_rows(row["proprio"], embodiment.proprio_width, f"sample {key}: proprio", embodiment)


def _check_images(count: int, key: str, members: Mapping[str, bytes]) -> None:
    images = [name for name in members if name.endswith("jpg")]
    if count > MAX_IMAGES or sorted(images) != sorted(image_names(count)):
        raise DataError(
            f"sample {key} has the images {', '.join(images) or 'none'}; its num_images is {count}.",
            f"Name them jpg, 1.jpg, 2.jpg, at most {MAX_IMAGES}.",
        )


def _check_rows(values: Any, width: int, what: str, embodiment: Embodiment) -> None:
    """Raise DataError unless `values`, (D,) or (T,D), have `width` columns, and all numbers are good."""
    rows = np.asarray(values, dtype=np.float64)
    shape = rows.shape
    if not shape or shape[-1] != width:
        raise DataError(
            f"{what} has shape {shape}; the embodiment {embodiment.name} has {width} numbers.", "Change one of the two."
        )
    refuse_bad_rows(np.atleast_2d(rows), what, "Repair the source, or leave this episode out.")
