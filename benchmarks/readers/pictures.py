"""Synthetic demonstrations and questions at the sizes of `pocket`, and webdataset's way to batches of them."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.readers.ours import SHARD_RECORDS
from pokevla.data.dataset import open_dataset
from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.sources.images import encode_jpeg, encode_mask
from pokevla.data.statistics import compute_statistics
from pokevla.data.tables.questions import SAMPLE_SCHEMA as QUESTION_SCHEMA
from pokevla.data.writer import DatasetWriter
from pokevla.embodiment.libero import LIBERO
from pokevla.features.cache_files import write_manifest, write_shard
from pokevla.features.layout import Features, RecordLayout

SIDE = 256
"""Side of the stored pictures in pixels, as `pokevla data regenerate` makes them for the recipes."""


class WordTokenizer:
    """One id per character: the benchmark measures batches, not a tokenizer."""

    pad_token_id = 0

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """Ids of a text."""
        return {"input_ids": [ord(letter) for letter in text]}


def picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture (S,S,3) uint8, which JPEG keeps as well as a photo, and a mask (S,S) bool."""
    coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[60:140, 80:150] = True
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)), mask


def write_robot(folder: Path, layout: RecordLayout, records: list[Features]) -> tuple[Path, Path]:
    """A dataset of two views with masks, one sample for each record but the last seven, and its cache."""
    rng = np.random.default_rng(0)
    count = len(records)
    actions, proprio = rng.uniform(-1, 1, (count, 7)), rng.uniform(-1, 1, (count, 8)).astype(np.float32)
    task = {"suite": "s", "task": "t", "task_index": 0, "instruction": "pick up the bowl", "split": "train"}
    with DatasetWriter(
        folder / "dataset", group="a", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, embodiment=LIBERO,
        shard_samples=SHARD_RECORDS,
    ) as writer:  # fmt: skip
        for frame in range(count):
            members: dict[str, bytes] = {}
            for view in LIBERO.views:
                image, mask = picture(rng)
                members |= {f"{view}.jpg": encode_jpeg(image, 95), f"{view}.mask.png": encode_mask(mask)}
            row = {**task, "episode": 0, "frame": frame, "proprio": proprio[frame].tolist()}
            writer.add_sample(f"k{frame:05d}", members, row)
        sequences = {"actions": actions.tolist(), "executed_actions": actions.tolist(), "proprio": proprio.tolist()}
        writer.add_episode(
            {**task, "episode": 0, "target_shift": [0.0, 0.0], "length": count, "init_state_index": 0, **sequences}
        )
        writer.finish({"statistics": compute_statistics([actions], [proprio], LIBERO).to_dict()})
    dataset, cache = open_dataset(folder / "dataset"), folder / "cache"
    for number, name in enumerate(dataset.shard_names):
        part = range(number * SHARD_RECORDS, min((number + 1) * SHARD_RECORDS, count))
        write_shard(cache / "shards" / name, ((f"k{place:05d}", records[place]) for place in part), layout)
    write_manifest(
        cache,
        {
            "fingerprint": "f", "parts": {}, "fields": layout.to_list(), "num_samples": count,
            "shards": dataset.shard_names, "payload_bytes": layout.payload_bytes,
        },
    )  # fmt: skip
    return dataset.root, cache


def write_questions(out: Path, count: int, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """A dataset of questions about one picture of `size` (width, height) each; answers have the spread of lengths of
    LLaVA's (log-normal)."""
    rng = np.random.default_rng(1)
    words = {"split": "train", "source": "s", "category": "general", "task": "qa", "answer_kind": "text"}
    with DatasetWriter(out, group="q", samples=QUESTION_SCHEMA) as writer:
        for number in range(count):
            answer = "n" * min(1500, int(rng.lognormal(4.5, 1.0)) + 1)
            row = {**words, "question": "What is in this picture?", "answer": answer}
            pixels = np.asarray(Image.fromarray(picture(rng)[0]).resize(size, Image.Resampling.BICUBIC))
            members = {"jpg": encode_jpeg(pixels, 95), "json": b"{}"}
            writer.add_sample(f"q{number}", members, {**row, "width": size[0], "height": size[1]})
        return writer.finish({"statistics": None})


def webdataset_batches(folder: Path, layout: RecordLayout, size: int, mask_size: int, micro: int) -> Iterator[Any]:
    """Endless batches of the same pictures, masks and features by webdataset and torchvision's v2 transforms."""
    wds: Any = importlib.import_module("webdataset")
    v2: Any = importlib.import_module("torchvision.transforms.v2")
    tv: Any = importlib.import_module("torchvision.tv_tensors")
    record = layout.new_arrays()
    arrays = {name: field.values for name, field in record.items()}
    arrays |= {f"{name}_scales": field.scales for name, field in record.items() if field.scales is not None}
    rng = np.random.default_rng(0)
    (folder / "wds").mkdir()
    with wds.ShardWriter(f"{folder}/wds/a-%05d.tar", maxcount=SHARD_RECORDS, verbose=0) as writer:
        for number in range(2 * micro):
            members: dict[str, Any] = {f"{name}.npy": array for name, array in arrays.items()}
            for view in LIBERO.views:
                image, mask = picture(rng)
                members |= {f"{view}.jpg": encode_jpeg(image, 95), f"{view}.mask.png": encode_mask(mask)}
            writer.write({"__key__": f"k{number:05d}", **members})
    geometry = v2.RandomResizedCrop(size, scale=(0.9, 0.9), ratio=(1.0, 1.0), antialias=True)
    colours = v2.ColorJitter(0.2, 0.2, 0.2, 0.05)
    shrink = v2.Resize((mask_size, mask_size), antialias=False)

    def prepared(sample: dict[str, Any]) -> dict[str, Any]:
        out = {name: sample[f"{name}.npy"] for name in arrays}
        for view in LIBERO.views:
            image = tv.Image(np.asarray(Image.open(io.BytesIO(sample[f"{view}.jpg"]))).transpose(2, 0, 1).copy())
            mask = tv.Mask(np.asarray(Image.open(io.BytesIO(sample[f"{view}.mask.png"]))).astype(np.uint8)[None])
            image, mask = geometry(image, mask)
            out[view] = v2.functional.to_dtype(colours(image), torch.float32, scale=True).numpy()
            out[f"{view}.mask"] = shrink(mask).numpy()
        return out

    urls = sorted(str(path) for path in (folder / "wds").glob("*.tar"))
    npy = wds.autodecode.Decoder([wds.autodecode.basichandlers], only=[f"{name}.npy" for name in arrays])
    pipeline = wds.WebDataset(urls, shardshuffle=False).map(npy).map(prepared).batched(micro, partial=False)
    while True:
        yield from pipeline
