"""Feature records in our cache, and the physical limits of reading them."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.loading.memory import FeatureSlots, page_aligned
from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.writer import DatasetWriter
from pokevla.embodiment.libero import LIBERO
from pokevla.features.cache_files import write_manifest, write_shard
from pokevla.features.feature_reader import FeatureReader
from pokevla.features.layout import Features, FieldLayout, RecordLayout
from pokevla.shards.index import load_index

BATCH = 8
SHARD_RECORDS = 24
LAYOUTS = {
    "pocket": RecordLayout(
        (
            FieldLayout("sam", "sam", (2, 256, 64, 64), "int8_channel64"),
            FieldLayout("vggt", "vggt", (2, 256, 2048), "int8_token"),
        )
    ),
    "mini": RecordLayout(
        (
            FieldLayout("sam", "sam", (2, 32, 16, 16), "int8_channel64"),
            FieldLayout("vggt", "vggt", (2, 64, 64), "int8_token"),
        )
    ),
}
"""Records of 3.06 MiB and 25 KB."""


def random_records(layout: RecordLayout, count: int) -> list[Features]:
    """Records of random bytes."""
    rng = np.random.default_rng(0)
    records = []
    for _ in range(count):
        record = layout.new_arrays()
        for field in record.values():
            field.values[...] = rng.integers(-127, 128, field.values.shape, dtype=np.int8)
            if field.scales is not None:
                field.scales[...] = rng.random(field.scales.shape)
        records.append(record)
    return records


def write_cache(folder: Path, layout: RecordLayout, records: list[Features]) -> tuple[Dataset, Path]:
    """A dataset of grey pictures and a cache with these records."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 90, 90)).save(buffer, "JPEG")
    task = {"suite": "s", "task": "t", "task_index": 0, "instruction": "pick", "split": "train"}
    with DatasetWriter(
        folder / "dataset", group="a", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, embodiment=LIBERO,
        shard_samples=SHARD_RECORDS,
    ) as writer:  # fmt: skip
        for frame in range(len(records)):
            row = {**task, "episode": 0, "frame": frame, "proprio": [0.0] * 8}
            writer.add_sample(f"k{frame:05d}", {f"{view}.jpg": buffer.getvalue() for view in LIBERO.views}, row)
        zeros = {name: [[0.0] * 7] * len(records) for name in ("actions", "executed_actions")}
        sequences = {**zeros, "proprio": [[0.0] * 8] * len(records), "length": len(records), "init_state_index": 0}
        writer.add_episode({**task, "episode": 0, "target_shift": [0.0, 0.0], **sequences})
        writer.finish({"statistics": None})
    dataset, directory = open_dataset(folder / "dataset", mapped=True), folder / "cache"
    for number, name in enumerate(dataset.shard_names):
        part = range(number * SHARD_RECORDS, min((number + 1) * SHARD_RECORDS, len(records)))
        write_shard(directory / "shards" / name, ((f"k{place:05d}", records[place]) for place in part), layout)
    write_manifest(
        directory,
        {
            "fingerprint": "f", "parts": {}, "fields": layout.to_list(), "num_samples": len(records),
            "shards": dataset.shard_names, "payload_bytes": layout.payload_bytes,
        },
    )  # fmt: skip
    return dataset, directory


Side = Callable[[], None]
"""Reads all records into the slots."""


def our_sides(dataset: Dataset, directory: Path, layout: RecordLayout) -> dict[str, Side]:
    """Our reader with a checksum at every read, and with one at the first read; bare `preadv`; `memcpy`."""
    count = len(dataset.rows)
    slots = [FeatureSlots(layout.fields, BATCH, page_aligned) for _ in range(2)]
    every = FeatureReader(directory, dataset, "f")
    once = FeatureReader(directory, dataset, "f", "first_read")
    for row in range(count):
        once.read_row(row, slots[0].buffers(row % BATCH))

    def reading(reader: FeatureReader) -> Side:
        def run() -> None:
            for row in range(count):
                reader.read_row(row, slots[row // BATCH % 2].buffers(row % BATCH))

        return run

    files = [os.open(directory / "shards" / name, os.O_RDONLY) for name in dataset.shard_names]
    places: list[tuple[int, int]] = []
    for number, name in enumerate(dataset.shard_names):
        index = load_index(directory / "shards" / name, "")
        places += [(files[number], index.first_member(each)[0]) for each in range(len(index))]
    buffers = [[slot.buffers(each) for each in range(BATCH)] for slot in slots]
    targets = [buffers[row // BATCH % 2][row % BATCH] for row in range(count)]
    plan = [(file, offset, target) for (file, offset), target in zip(places, targets, strict=True)]

    def preadv() -> None:
        for file, offset, target in plan:
            os.preadv(file, target, offset)

    source = np.frombuffer(np.random.default_rng(1).bytes(layout.payload_bytes * SHARD_RECORDS), dtype=np.uint8)
    ring = page_aligned((2 * BATCH, layout.payload_bytes), np.uint8)
    rows = source.reshape(SHARD_RECORDS, -1)

    def memcpy() -> None:
        for row in range(count):
            ring[row % (2 * BATCH)] = rows[row % SHARD_RECORDS]

    return {"ours": reading(every), "ours_first_read": reading(once), "preadv": preadv, "memcpy": memcpy}
