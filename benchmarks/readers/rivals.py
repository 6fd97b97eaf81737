"""The same records in the formats of webdataset, energon, litdata and mosaicml-streaming (MDS), copied into the same
slots.

Each function writes the records and returns a function that reads them all. ImportError: the package is not there.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.readers.ours import BATCH, SHARD_RECORDS, Side
from pokevla.data.loading.memory import page_aligned
from pokevla.features.layout import Features


def named_arrays(record: Features) -> dict[str, np.ndarray]:
    """The arrays of a record by name, as a user of another format would store them."""
    values = {name: field.values for name, field in record.items()}
    return values | {f"{name}_scales": field.scales for name, field in record.items() if field.scales is not None}


def webdataset_side(folder: Path, records: list[Features]) -> Side:
    """`WebDataset(...).decode()` of `.npy` members, its default reader."""
    wds: Any = importlib.import_module("webdataset")
    _write_tars(wds, folder, records)
    urls = sorted(map(str, folder.glob("*.tar")))
    names = list(named_arrays(records[0]))
    return _side(
        records,
        lambda: (
            {name: sample[f"{name}.npy"] for name in names}
            for sample in wds.WebDataset(urls, shardshuffle=False).decode()
        ),
    )


def _write_tars(wds: Any, folder: Path, records: list[Features]) -> None:
    folder.mkdir()
    with wds.ShardWriter(f"{folder}/a-%05d.tar", maxcount=SHARD_RECORDS, verbose=0) as writer:
        for number, record in enumerate(records):
            members = {f"{name}.npy": array for name, array in named_arrays(record).items()}
            writer.write({"__key__": f"k{number:05d}", **members})


def energon_side(folder: Path, records: list[Features]) -> Side:
    """Megatron-Energon's loader without workers over `.npy` members of tars that `energon prepare` has indexed."""
    energon: Any = importlib.import_module("megatron.energon")
    command: Any = importlib.import_module("megatron.energon.cli.main")
    _write_tars(importlib.import_module("webdataset"), folder, records)
    command.main(
        ["prepare", "--non-interactive", "--split-ratio", "1,0,0", "--sample-type", "CrudeWebdataset", str(folder)],
        standalone_mode=False,
    )
    names = list(named_arrays(records[0]))

    @energon.stateless
    def cook(sample: Any) -> Any:
        return energon.basic_sample_keys(sample) | {name: np.load(io.BytesIO(sample[f"{name}.npy"])) for name in names}

    encoder = type("Arrays", (energon.DefaultTaskEncoder,), {"decoder": None, "cookers": [energon.Cooker(cook)]})
    workers = energon.WorkerConfig(rank=0, world_size=1, num_workers=0)

    def samples() -> Iterable[Mapping[str, np.ndarray]]:
        dataset = energon.get_train_dataset(
            str(folder), worker_config=workers, batch_size=None, shuffle_buffer_size=None,
            max_samples_per_sequence=None, task_encoder=encoder(), repeat=False,
        )  # fmt: skip
        return iter(energon.get_loader(dataset))

    return _side(records, samples)


def litdata_side(folder: Path, records: list[Features]) -> Side:
    """`litdata.StreamingDataset` iterated in order, chunks of 64 MB."""
    importlib.import_module("litdata")
    streaming: Any = importlib.import_module("litdata.streaming")
    cache = streaming.Cache(str(folder), chunk_bytes=64_000_000)
    for number, record in enumerate(records):
        cache[number] = named_arrays(record)
    cache.done()
    cache.merge()
    dataset = streaming.StreamingDataset(str(folder), shuffle=False)
    return _side(records, lambda: iter(dataset))


def mds_side(folder: Path, records: list[Features]) -> Side:
    """`streaming.StreamingDataset` by index, which is its faster way."""
    streaming: Any = importlib.import_module("streaming")
    columns = {
        name: f"ndarray:{array.dtype}:{','.join(map(str, array.shape))}"
        for name, array in named_arrays(records[0]).items()
    }
    with streaming.MDSWriter(out=str(folder), columns=columns, size_limit=1 << 26) as writer:
        for record in records:
            writer.write(named_arrays(record))
    dataset = streaming.StreamingDataset(local=str(folder), shuffle=False, batch_size=BATCH)
    return _side(records, lambda: (dataset[number] for number in range(len(records))))


SIDES: dict[str, Callable[[Path, list[Features]], Side]] = {
    "webdataset": webdataset_side,
    "energon": energon_side,
    "litdata": litdata_side,
    "mds": mds_side,
}


def _side(records: list[Features], samples: Callable[[], Iterable[Mapping[str, np.ndarray]]]) -> Side:
    shapes = named_arrays(records[0])
    slots = {name: page_aligned((2 * BATCH, *array.shape), array.dtype) for name, array in shapes.items()}

    def run() -> None:
        count = 0
        for sample in samples():
            for name, slot in slots.items():
                np.copyto(slot[count % (2 * BATCH)], sample[name])
            count += 1
        if count != len(records):
            raise RuntimeError(f"{count} records were read instead of {len(records)}")

    return run
