"""Parsers of binary files: shards, tables, feature records, torch files, safetensors, images."""

from __future__ import annotations

import functools
import io
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from pokevla.data.dataset import open_dataset, shard_sizes, usable_rows
from pokevla.data.images.decoding import decode_image, decode_mask
from pokevla.data.sources.demonstrations import describe, image_sizes, read_demo
from pokevla.data.sources.images import encode_jpeg, encode_mask
from pokevla.features.cache_files import read_index, write_manifest, write_shard
from pokevla.features.cache_verify import checked_records
from pokevla.features.feature_reader import open_directory
from pokevla.features.layout import decode_record, encode_record
from pokevla.files.foreign.hdf5 import hdf5_reader
from pokevla.files.foreign.process import ForeignReader
from pokevla.shards.shard_reader import Shards
from pokevla.teachers.weights import read_state
from pokevla.weights.safetensors_files import INDEX, FileWeights
from pokevla.weights.torch_files import locate, open_torch_file
from tests.fuzz.target import Target
from tests.toys import write_toy_dataset
from tests.unit.data.conftest import OBJECT_TASK, write_libero_file
from tests.unit.features.toy_layouts import LAYOUT, THREE, random_features
from tests.unit.shards.toy_shards import make_shard


def _index_files(folder: Path) -> list[bytes]:
    return [make_shard(folder).with_suffix(".idx").read_bytes()]


def _shard_index(folder: Path, content: bytes) -> None:
    (folder / "a-00000.idx").write_bytes(content)
    _read_all(folder)


def _shard_files(folder: Path) -> list[bytes]:
    return [make_shard(folder).read_bytes()]


def _shard(folder: Path, content: bytes) -> None:
    (folder / "a-00000.tar").write_bytes(content)
    _read_all(folder)


def _read_all(folder: Path) -> None:
    shards = Shards(folder, "Make it again.")
    try:
        for entry in shards.index("a-00000.tar"):
            shards.read_sample("a-00000.tar", entry)
    finally:
        shards.close()


def _tables(folder: Path) -> list[bytes]:
    return [(write_toy_dataset(folder / "d", episodes=3) / "samples.parquet").read_bytes()]


def _samples_table(folder: Path, content: bytes) -> None:
    (folder / "d" / "samples.parquet").write_bytes(content)
    dataset = open_dataset(folder / "d")
    shard_sizes(dataset, usable_rows(dataset, "train", 8))


def _caches(folder: Path) -> Path:
    (folder / "shards").mkdir()
    samples = [(f"k{number}", random_features(number, THREE)) for number in range(3)]
    write_shard(folder / "shards" / "a-00000.tar", samples, THREE)
    manifest = {"fingerprint": "f", "parts": {}, "fields": THREE.to_list(), "shards": ["a-00000.tar"], "num_samples": 3}
    write_manifest(folder, manifest)
    return folder


def _cache_manifests(folder: Path) -> list[bytes]:
    return [(_caches(folder) / "manifest.json").read_bytes()]


def _cache_manifest(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    reader = open_directory(folder)
    for key in reader.keys:
        reader.read(key)


def _cache_tars(folder: Path) -> list[bytes]:
    return [(_caches(folder) / "shards" / "a-00000.tar").read_bytes()]


def _cache_tar(folder: Path, content: bytes) -> None:
    shard = folder / "shards" / "a-00000.tar"
    shard.write_bytes(content)
    list(checked_records(shard, THREE, read_index(shard)))


def _records(_folder: Path) -> list[bytes]:
    return [encode_record(random_features(0, LAYOUT), LAYOUT, 512)]


def _record(_folder: Path, content: bytes) -> None:
    decode_record(content, LAYOUT, "a record")


def _torch_files(_folder: Path) -> list[bytes]:
    base = torch.arange(24, dtype=torch.float32)
    states = ({"a": torch.ones(3, 4), "b": {"c": base[4:12], "d": 5}}, {"w": torch.ones(2, dtype=torch.bfloat16)})
    return [_saved(state) for state in states]


def _saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _torch_file(folder: Path, content: bytes) -> None:
    path = folder / "a.pt"
    path.write_bytes(content)
    todo = [open_torch_file(path)]
    while todo:
        value = todo.pop()
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, torch.Tensor):
            locate(path, value).read()


def _teacher_files(_folder: Path) -> list[bytes]:
    return [_saved({"a": torch.ones(3, 4), "b": torch.zeros(2)})]


def _teacher_weights(folder: Path, content: bytes) -> None:
    (folder / "a.pt").write_bytes(content)
    read_state(folder / "a.pt")


def _safetensors(folder: Path) -> list[bytes]:
    save_file({"a": torch.ones(3, 4), "b": torch.arange(6)}, folder / "model.safetensors", {"format": "pt"})
    return [(folder / "model.safetensors").read_bytes()]


def _weights_file(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with FileWeights(folder) as weights:
        for name in weights.specs:
            weights.read(name)


def _weights_indices(folder: Path) -> list[bytes]:
    save_file({"a": torch.ones(3, 4)}, folder / "model-1.safetensors")
    return [b'{"metadata": {"total_size": 48}, "weight_map": {"a": "model-1.safetensors"}}']


def _weights_index(folder: Path, content: bytes) -> None:
    (folder / INDEX).write_bytes(content)
    with FileWeights(folder):
        pass


def _images(_folder: Path) -> list[bytes]:
    picture = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    return [encode_jpeg(picture, 90), encode_mask(picture[..., 0] > 99)]


def _image(_folder: Path, content: bytes) -> Image.Image:
    return decode_mask(content, "k") if content[:4] == b"\x89PNG" else decode_image(content, "k")


@functools.cache
def _hdf5_reader(_process: int) -> ForeignReader:
    """The reader of this process. Its child is started once: that takes longer than reading."""
    return hdf5_reader(timeout_s=3.0)  # libhdf5 hangs on some inputs: that is its named error, after this time


def _demonstrations(folder: Path) -> list[bytes]:
    path = write_libero_file(folder / "libero_object" / f"{OBJECT_TASK}_demo.hdf5", demos=1, frames=6, side=16)
    return [path.read_bytes()]


def _demonstration(folder: Path, content: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as new:  # the reader keeps the last file open, by its name
        path = Path(new) / "libero_object" / f"{OBJECT_TASK}_demo.hdf5"
        path.parent.mkdir()
        path.write_bytes(content)
        reader = _hdf5_reader(os.getpid())
        header = describe(path, reader)
        image_sizes(header, reader)
        for name in header.demo_names:
            read_demo(header, name, reader)


TARGETS = (
    Target("demonstrations", _demonstrations, _demonstration),
    Target("shard_index", _index_files, _shard_index),
    Target("shard", _shard_files, _shard),
    Target("samples_table", _tables, _samples_table),
    Target("cache_manifest", _cache_manifests, _cache_manifest, is_json=True),
    Target("cache_tar", _cache_tars, _cache_tar),
    Target("feature_record", _records, _record),
    Target("torch_file", _torch_files, _torch_file),
    Target("teacher_weights", _teacher_files, _teacher_weights),
    Target("safetensors", _safetensors, _weights_file),
    Target("safetensors_index", _weights_indices, _weights_index, is_json=True),
    Target("images", _images, _image),
)
