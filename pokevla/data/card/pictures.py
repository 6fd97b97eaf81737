"""Pictures of the card: sample frames with their masks, equal images, and nearly equal ones."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import xxhash
from PIL import Image, ImageDraw

from pokevla.data.card.duplicates import EqualImages, near_pairs
from pokevla.data.dataset import Dataset
from pokevla.data.images.decoding import decode_image
from pokevla.data.images.picture_hash import picture_hash
from pokevla.data.inspection import GOAL, outlined
from pokevla.data.randomness import raw
from pokevla.data.reader import ShardReader, dataset_shards, member
from pokevla.data.records import MAX_IMAGES, image_names
from pokevla.errors import DataError

SHOWN = 12
"""Samples that are shown."""
SHOWN_PAIRS = 6
"""Pairs of nearly equal pictures that are shown."""
QUALITY = 80
"""JPEG quality of the pictures in the page."""

Progress = Callable[[int, int], None]


def equal_images(dataset: Dataset, on_shard: Progress | None = None) -> dict[str, Any]:
    """Equal images (`EqualImages.to_dict`) by their checksums in the shards' indices; no picture is decoded. Groups are
    episodes; in a VLM dataset each question is one, since several may be asked about one image.

    Raises DataError if an index is missing or damaged.
    """
    counted, shards = EqualImages(), dataset_shards(dataset)
    is_robot = dataset.embodiment is not None
    views = dataset.embodiment.views if dataset.embodiment is not None else ()
    extensions = [f"{view}.jpg" for view in views] or image_names(MAX_IMAGES)
    starts = dataset.rows.shard_starts
    for number, name in enumerate(dataset.shard_names):
        start, stop = int(starts[number]), int(starts[number + 1])
        groups = dataset.rows.numbers("episode", start, stop) if is_robot else np.arange(start, stop)
        for extension in extensions:
            places, checksums = shards.index(name).checksums_of(extension)
            if len(places) and places[-1] >= len(groups):
                raise DataError(f"{name} has more samples than samples.parquet.", "Convert the dataset again.")
            counted.add(checksums, groups[places])
        if on_shard is not None:
            on_shard(number + 1, len(dataset.shard_names))
    return counted.to_dict()


def chosen_rows(dataset: Dataset, count: int) -> np.ndarray:
    """(n,) int64 ascending rows, n at most `count`, chosen by a hash of the dataset's fingerprint: the same ones at
    every call, spread over all shards."""
    total = len(dataset.rows)
    if total <= count:
        return np.arange(total)
    draws = raw(2 * count, "card", "rows", dataset.fingerprint) % np.uint64(total)
    first = np.sort(np.unique(draws, return_index=True)[1])[:count]
    return np.sort(draws[first].astype(np.int64))


def picture_figures(dataset: Dataset, rows: np.ndarray, on_row: Progress | None = None) -> dict[str, Any]:
    """Sample frames, nearly equal pictures, and the samples that could not be read.

    Decodes the first image of each of `rows` (n,). `samples`: up to SHOWN of them with all views. `near`: `pictures`
    compared, `pairs` of different episodes (or questions with different images) that are nearly equal, and some
    `shown`. `damaged`: what could not be read, one sentence each.
    """
    reader, is_robot = ShardReader(dataset), dataset.embodiment is not None
    first = f"{dataset.embodiment.views[0]}.jpg" if dataset.embodiment is not None else "jpg"
    shown = set(rows[np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().astype(int)].tolist())
    samples, damaged = [], []
    hashes, groups, hashed = [], [], []
    for done, row in enumerate(rows.tolist(), start=1):
        key = dataset.rows.text("key", row)
        try:
            members = reader.read(row)
            if row in shown:
                samples.append(_sample(dataset, members, row, key))
            if first in members:
                hashes.append(picture_hash(decode_image(members[first], key)))
                groups.append(dataset.rows.number("episode", row) if is_robot else _content(members[first]))
                hashed.append(row)
        except DataError as error:
            damaged.append(error.message)
        if on_row is not None:
            on_row(done, len(rows))
    total, pairs = near_pairs(np.array(hashes), np.array(groups)) if hashes else (0, [])
    pairs = [(hashed[i], hashed[j], bits) for i, j, bits in pairs]
    shown_pairs = [_pair(dataset, reader, pair, first) for pair in _various(pairs)]
    reader.close()
    return {
        "samples": samples,
        "near": {"pictures": len(hashes), "pairs": total, "shown": shown_pairs},
        "damaged": damaged,
    }


def _content(payload: bytes) -> int:
    """A number that is equal for equal images only, so that questions about one image are no duplicates."""
    return xxhash.xxh64_intdigest(payload) >> 1


def _various(pairs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """A few pairs, no row twice."""
    chosen: list[tuple[int, int, int]] = []
    seen: set[int] = set()
    for i, j, bits in pairs:
        if not {i, j} & seen and len(chosen) < SHOWN_PAIRS:
            chosen.append((i, j, bits))
            seen |= {i, j}
    return chosen


def _pair(dataset: Dataset, reader: ShardReader, pair: tuple[int, int, int], extension: str) -> dict[str, Any]:
    keys = [dataset.rows.text("key", row) for row in pair[:2]]
    images = [outlined({extension: reader.read(row)[extension]}, extension, "", key)
              for row, key in zip(pair[:2], keys, strict=True)]  # fmt: skip
    return {"keys": keys, "bits": pair[2], "pictures": [as_uri(image) for image in images]}


def _sample(dataset: Dataset, members: dict[str, bytes], row: int, key: str) -> dict[str, Any]:
    """The pictures of one sample, with mask, points and boxes drawn in, and its texts."""
    if dataset.embodiment is not None:
        views = dataset.embodiment.views
        pictures = [outlined(members, f"{view}.jpg", f"{view}.mask.png", key) for view in views]
        text = dataset.rows.text("instruction", row)
        return {"key": key, "pictures": [as_uri(picture) for picture in pictures], "views": list(views), "text": text}
    pictures = []
    for number, name in enumerate(name for name in image_names(MAX_IMAGES) if name in members):
        pictures.append(outlined(members, name, "" if number else "mask.png", key))
        draw_target(pictures[-1], read_target(members, key))
    numbered = [f"image {number}" for number in range(1, len(pictures) + 1)]
    return {
        "key": key,
        "pictures": [as_uri(picture) for picture in pictures],
        "views": numbered if len(pictures) > 1 else ["image"],
        "text": dataset.rows.text("question", row),
        "answer": dataset.rows.text("answer", row),
    }


def read_target(members: dict[str, bytes], key: str) -> dict[str, Any]:
    """Points and boxes of a sample, by name. Raises DataError if its JSON cannot be read."""
    try:
        target = json.loads(member(members, "json", key)).get("target", {})
    except (ValueError, AttributeError) as error:
        raise DataError(f"sample {key} has JSON that cannot be read ({error}).") from error
    return target if isinstance(target, dict) else {}


def draw_target(picture: Image.Image, target: dict[str, Any], *, is_trace: bool = False) -> None:
    """Draw points and boxes, fractions of the image, into it; the points of a trace are joined, its first is filled.

    Of a sample with several images they are drawn into each: only its text tells which one they are about.
    """
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    points = [(x * width, y * height) for x, y in target.get("points") or ()]
    if is_trace and len(points) > 1:
        draw.line(points, fill=GOAL, width=2)
    for number, (x, y) in enumerate(points):
        fill = GOAL if is_trace and number == 0 else None
        draw.ellipse([x - 4, y - 4, x + 4, y + 4], outline=GOAL, fill=fill, width=2)
    for box in target.get("boxes") or ():
        draw.rectangle(
            [value * side for value, side in zip(box, (width, height) * 2, strict=True)], outline=GOAL, width=2
        )


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures in a row, on white."""
    if len(pictures) == 1:
        return pictures[0]
    size = (sum(picture.width for picture in pictures), max(picture.height for picture in pictures))
    joined, left = Image.new("RGB", size, "white"), 0
    for picture in pictures:
        joined.paste(picture, (left, 0))
        left += picture.width
    return joined


def as_uri(picture: Image.Image) -> str:
    """A picture as a `data:` URI."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
