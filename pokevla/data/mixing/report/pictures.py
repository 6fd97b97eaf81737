"""Some samples of each source with points, boxes and traces drawn into their pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from pokevla.data.card.pictures import as_uri, draw_target, read_target, side_by_side
from pokevla.data.dataset import Dataset
from pokevla.data.images.decoding import decode_image
from pokevla.data.mixing.report.counting import ClassFigures, SampleKind
from pokevla.data.randomness import raw
from pokevla.data.reader import ShardReader
from pokevla.data.records import MAX_IMAGES, image_names
from pokevla.data.screening.scanning import read_record
from pokevla.errors import DataError

OF_A_SOURCE = 4
"""Samples that are shown of each source in a category."""
MAX_SHOWN = 160
FURTHER_TURNS = 3
"""Turns of a conversation that are shown after the first."""
WIDTH = 256
"""Longest side of a picture in the report, in pixels."""


def chosen_samples(found: Mapping[SampleKind, ClassFigures], seed: int) -> list[tuple[SampleKind, int]]:
    """(class, row of its dataset) of the samples to show: of each source in a category `OF_A_SOURCE`, from its tasks in
    turn, chosen by a hash of the seed and the class; the first of a class has several images if any of its samples
    has."""
    sources: dict[tuple[str, str], list[SampleKind]] = {}
    for kind in found:
        sources.setdefault((kind.category, kind.source), []).append(kind)
    chosen = []
    for kinds in sources.values():
        drawn = [(kind, _drawn(found[kind], kind, seed)) for kind in sorted(kinds)]
        turns = [(kind, rows[turn]) for turn in range(OF_A_SOURCE) for kind, rows in drawn if turn < len(rows)]
        chosen += turns[:OF_A_SOURCE]
    return chosen[:MAX_SHOWN]


def _drawn(figures: ClassFigures, kind: SampleKind, seed: int) -> list[int]:
    rows = _some(figures.rows, OF_A_SOURCE, kind, seed)
    first = _some(figures.several_images, 1, kind, seed)
    return (first + [row for row in rows if row not in first])[:OF_A_SOURCE]


def _some(rows: Sequence[int], most: int, kind: SampleKind, seed: int) -> list[int]:
    draws = raw(8 * OF_A_SOURCE, "mixture report", seed, *kind) % np.uint64(max(1, len(rows)))
    firsts = np.sort(np.unique(draws, return_index=True)[1])[:most]
    return [rows[place] for place in draws[firsts].tolist()] if len(rows) else []


def sample_pictures(
    datasets: Mapping[str, Dataset],
    chosen: list[tuple[SampleKind, int]],
    on_sample: Callable[[int, int], None] | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The samples to show, as plain values, and a sentence for each that could not be read.

    Args:
        datasets: by folder.
        on_sample: called with (done, total).
    """
    readers = {name: ShardReader(dataset) for name, dataset in datasets.items()}
    shown, damaged = [], []
    for done, (kind, row) in enumerate(chosen, start=1):
        try:
            shown.append(_sample(datasets[kind.dataset], readers[kind.dataset], kind, row))
        except DataError as error:
            damaged.append(error.message)
        if on_sample is not None:
            on_sample(done, len(chosen))
    for reader in readers.values():
        reader.close()
    return shown, damaged


def _sample(dataset: Dataset, reader: ShardReader, kind: SampleKind, row: int) -> dict[str, Any]:
    key, members = dataset.rows.text("key", row), reader.read(row)
    further_turns = read_record(members, key).get("further_turns") or []
    pictures = []
    for name in [name for name in image_names(MAX_IMAGES) if name in members]:
        image = decode_image(members[name], key)
        scale = WIDTH / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        pictures.append(image.resize(size, Image.Resampling.BICUBIC))
        draw_target(pictures[-1], read_target(members, key), is_trace=kind.answer_kind == "trace")
    return {
        **kind._asdict(),
        "key": key,
        "picture": as_uri(side_by_side(pictures)) if pictures else None,
        "question": dataset.rows.text("question", row),
        "answer": dataset.rows.text("answer", row),
        "further_turns": further_turns[:FURTHER_TURNS],
        "turns_left_out": len(further_turns[FURTHER_TURNS:]),
    }
