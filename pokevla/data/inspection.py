"""Inspecting a dataset: contents of a sample, counts, contact sheet, verification of every checksum."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from pokevla.data.dataset import SHARDS_NAME, Dataset, open_dataset
from pokevla.data.images.decoding import decode_image, decode_mask
from pokevla.data.reader import ShardReader, dataset_shards, member
from pokevla.data.records import image_names
from pokevla.data.tables.opening import find_twins
from pokevla.data.writer import dataset_fingerprint
from pokevla.embodiment.finite import bad_number
from pokevla.errors import DataError, UsageError
from pokevla.files.writing import atomic_path
from pokevla.recipe.checking.recorded import RECORDED

TILE = 192
"""Side of one tile of a contact sheet, in pixels."""
SHEET_SIGNATURE = b"pokevla data show"
"""Text in a contact sheet (PNG) that tells it from any other image."""
OUTLINE = (255, 40, 40)
GOAL = (40, 255, 40)
SEQUENCES = ("actions", "executed_actions", "proprio")
"""Columns of the episodes' table with a row of numbers for each frame."""


def find_row(dataset: Dataset, sample: str) -> int:
    """Row of a sample given by key or number. Raises UsageError if there is no such sample."""
    if sample.isdigit() and int(sample) < dataset.samples.num_rows:
        return int(sample)
    keys = dataset.samples["key"].to_pylist()
    if sample not in keys:
        raise UsageError(
            f"{dataset.root} has no sample {sample!r}.", f"Give a number below {len(keys)}, or a key such as {keys[0]}."
        )
    return keys.index(sample)


def describe_sample(dataset: Dataset, row: int) -> dict[str, Any]:
    """Table columns of a sample, and the size of each of its members in bytes."""
    columns = dataset.samples.slice(row, 1).to_pylist()[0]
    members = ShardReader(dataset).read(row)
    return {**columns, "members": {extension: len(payload) for extension, payload in members.items()}}


def contact_sheet(dataset: Dataset, rows: Sequence[int]) -> Image.Image:
    """Images of samples with mask outlines and, for questions, the answer. One row of tiles per sample."""
    reader = ShardReader(dataset)
    tiles = [_tiles(dataset, reader, row) for row in rows]
    height, caption = TILE, 28
    sheet = Image.new("RGB", (TILE * max(2, *(len(t) for t, _ in tiles)), (height + caption) * len(tiles)), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (pictures, text) in enumerate(tiles):
        top = line * (height + caption)
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (column * TILE, top))
        for half, part in enumerate((text[:64], text[64:128])):
            draw.text((2, top + height + 13 * half), part, fill="black")
    return sheet


def save_contact_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a contact sheet, atomically, with the signature by which a later one may replace it."""
    information = PngInfo()
    information.add_text("Software", SHEET_SIGNATURE.decode())
    with atomic_path(path) as temporary:
        sheet.save(temporary, pnginfo=information)


def _tiles(dataset: Dataset, reader: ShardReader, row: int) -> tuple[list[Image.Image], str]:
    """Images of one sample, and its caption."""
    members, columns = reader.read(row), dataset.samples.slice(row, 1).to_pylist()[0]
    key = columns["key"]
    if dataset.embodiment is not None:
        views = dataset.embodiment.views
        pictures = [outlined(members, f"{view}.jpg", f"{view}.mask.png", key) for view in views]
        return pictures, f"{key} {columns['split']}: {columns['instruction']}"
    names = image_names(columns.get("num_images") or int("jpg" in members or columns["width"] > 0))
    pictures = [outlined(members, name, "" if number else "mask.png", key) for number, name in enumerate(names)]
    for picture in pictures:  # only the text tells which of several images points and boxes are of
        draw = ImageDraw.Draw(picture)
        for x, y in columns["target_points"]:
            draw.ellipse([x * TILE - 4, y * TILE - 4, x * TILE + 4, y * TILE + 4], outline=GOAL, width=2)
        for box in columns["target_boxes"]:
            draw.rectangle([v * TILE for v in box], outline=GOAL, width=2)
    return pictures or [
        Image.new("RGB", (TILE, TILE))
    ], f"{columns['question'].split(' Reply with')[0]} -> {columns['answer']}"


def outlined(members: dict[str, bytes], image: str, mask: str, key: str) -> Image.Image:
    """An image enlarged to a tile, with the outline of its mask if it has one. Raises DataError if it is damaged."""
    picture = decode_image(member(members, image, key), key).resize((TILE, TILE), Image.Resampling.BICUBIC)
    if mask not in members:
        return picture
    inside = np.asarray(decode_mask(members[mask], key).resize((TILE, TILE), Image.Resampling.NEAREST))
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    pixels = np.array(picture)
    pixels[inside & ~core] = OUTLINE
    return Image.fromarray(pixels)


def summarise(dataset: Dataset) -> dict[str, Any]:
    """Counts by split, task and category, sizes on disk, and normalisation statistics."""
    samples = dataset.samples
    shards = dataset.info["shards"].values()
    summary: dict[str, Any] = {
        "kind": dataset.kind,
        "fingerprint": dataset.fingerprint,
        "samples": samples.num_rows,
        "splits": _counts(samples["split"].to_pylist()),
        "fields": dataset.fields,
        "shards": len(dataset.shard_names),
        "size_bytes": sum(shard["size_bytes"] for shard in shards),
        "bytes_per_sample": round(sum(shard["size_bytes"] for shard in shards) / samples.num_rows),
    }
    if dataset.episodes is not None and dataset.embodiment is not None:
        lengths = dataset.episodes["length"].to_pylist()
        summary |= {
            "embodiment": dataset.embodiment.name,
            "views": list(dataset.embodiment.views),
            "episodes": len(lengths),
            "frames_mean": round(sum(lengths) / len(lengths), 1),
            "tasks": _counts(dataset.episodes["task"].to_pylist()),
            "noops_dropped": dataset.info.get("num_noops_dropped"),
            "recorded": dataset.info.get(RECORDED) or "unknown",
            **({"skipped": dataset.info["skipped"]} if "skipped" in dataset.info else {}),
            "statistics": dataset.info["statistics"],
        }
    else:
        summary |= {name: _counts(samples[name].to_pylist()) for name in ("category", "task", "answer_kind")}
        if "num_images" in samples.column_names:
            summary["num_images"] = _counts([str(count) for count in samples["num_images"].to_pylist()])
    return summary


def alarms(dataset: Dataset) -> list[str]:
    """What is wrong with the numbers of a robot dataset: one sentence for each episode and column with a number that is
    not finite or absurd (`pokevla.embodiment.finite`)."""
    if dataset.episodes is None:
        return []
    sentences = []
    for episode in dataset.episodes.select(["episode", *SEQUENCES]).to_pylist():
        for name in SEQUENCES:
            rows = np.asarray(episode[name], dtype=np.float64)
            bad = bad_number(rows) if rows.size else None
            if bad is not None:
                sentences.append(f"episode {episode['episode']}: {name}, row {bad[0]}: {bad[1]}.")
    return sentences


def refuse_alarms(dataset: Dataset) -> None:
    """Raise DataError if there are `alarms`, with the first one."""
    sentences = alarms(dataset)
    if sentences:
        others = f" So are {len(sentences) - 1} more sequences." if len(sentences) > 1 else ""
        raise DataError(f"{dataset.root}: {sentences[0]}{others}", "Repair the source and convert it again.")


def _counts(values: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def verify_dataset(root: Path, on_shard: Callable[[int, int], None] | None = None) -> int:
    """Check every member of every shard against its checksum, the whole dataset against its fingerprint, and that the
    numbers of its episodes are finite and not absurd.

    Returns the number of samples. Raises DataError naming the first shard and key that differ, or a bad number. Calls
    `on_shard(done, total)` after each shard.
    """
    dataset = open_dataset(root)
    names, keys = dataset.shard_names, dataset.samples["key"].to_pylist()
    shards, row = dataset_shards(dataset), 0
    for number, name in enumerate(names, start=1):
        path = root / SHARDS_NAME / name
        entries = shards.index(name)
        if entries.keys() != keys[row : row + len(entries)]:
            raise DataError(f"{path}: its samples are not those of samples.parquet.", "Convert the dataset again.")
        for entry in entries:
            _check_json(shards.read_sample(name, entry), entry.key, path)
        row += len(entries)
        if on_shard is not None:
            on_shard(number, len(names))
    if row != dataset.samples.num_rows:
        raise DataError(f"{root}: shards hold {row} samples, the table {dataset.samples.num_rows}.")
    if dataset_fingerprint(root, names, dataset.embodiment) != dataset.fingerprint:
        raise DataError(
            f"{root}: a table or the embodiment differs from the fingerprint in dataset.json.",
            "Convert the dataset again.",
        )
    for twin in find_twins(root, dataset.tables).values():
        twin.check()
    refuse_alarms(dataset)
    return row


def _check_json(members: dict[str, bytes], key: str, path: Path) -> None:
    """Raise DataError unless the sample's own JSON names its key."""
    if json.loads(members["json"]).get("key") != key:
        raise DataError(f"{path}: the JSON of {key} names another sample.", "Convert the dataset again.")
