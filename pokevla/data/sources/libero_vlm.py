"""`pokevla data convert libero-vlm`: writes questions about LIBERO scenes and demonstration frames.

The answers are derived from instance masks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pokevla.data.dataset import refuse_output
from pokevla.data.records import CATEGORIES, VLMRecord
from pokevla.data.sources.demonstrations import find_files, open_hdf5
from pokevla.data.sources.images import JPEG_QUALITY, encode_jpeg, encode_mask
from pokevla.data.sources.pictures import (
    LabelledPicture,
    demo_pictures,
    instance_phrases,
    is_scenes_file,
    scene_pictures,
)
from pokevla.data.sources.provenance import made_by, source_entry
from pokevla.data.sources.questions import ask
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.errors import UsageError

LICENSE = "CC-BY-4.0"
"""Licence of LIBERO's data. The images are renderings of its scenes."""
ORDER = {category: place for place, category in enumerate(CATEGORIES)}
_PAIRS = pa.list_(pa.list_(pa.float64()))
SAMPLE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("category", pa.string()),
        ("task", pa.string()),
        ("answer_kind", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("target_points", _PAIRS),
        ("target_boxes", _PAIRS),
        ("choice", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


@dataclass(frozen=True)
class LiberoVLMSettings:
    """Options of `convert libero-vlm`."""

    sources: Sequence[Path]
    out: Path
    per_image: int = 4
    """Questions per image. An image is one view."""
    frame_stride: int = 8
    """Use every Nth rendered frame of a demonstration: neighbouring frames look alike."""
    category_weights: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 1.0))
    """Relative weight of each category."""
    seed: int = 0
    shard_samples: int = 256
    jpeg_quality: int = JPEG_QUALITY
    overwrite: bool = False


def convert_libero_vlm(settings: LiberoVLMSettings, on_picture: Callable[[int], None] | None = None) -> Path:
    """Write a VLM dataset from scenes and demonstration files and return its directory.

    Calls `on_picture(done)` after each image. Raises DataError for files that are damaged, have another layout or lack
    masks, and UsageError if the weights sum to 0. Also raises what `refuse_output` raises.
    """
    if sum(settings.category_weights.values()) <= 0 or set(settings.category_weights) - set(CATEGORIES):
        raise UsageError(f"category weights must be of {', '.join(CATEGORIES)} and not all 0.")
    files = [path for source in settings.sources for path in find_files(source)]
    refuse_output(settings.out, [*settings.sources, *files], overwrite=settings.overwrite)
    vocabulary = {name for path in files for name in instance_phrases(path)}
    rng = np.random.Generator(np.random.Philox(settings.seed))
    asked: Counter[str] = Counter()
    with DatasetWriter(
        settings.out,
        group="libero_vlm",
        samples=SAMPLE_SCHEMA,
        shard_samples=settings.shard_samples,
        overwrite=settings.overwrite,
    ) as writer:
        for number, picture in enumerate(_pictures(files, vocabulary, settings.frame_stride)):
            _write_picture(writer, picture, settings, rng, asked)
            if on_picture is not None:
                on_picture(number + 1)
        return writer.finish(
            {
                "statistics": None,
                "sources": [_source(path) for path in files],
                "categories": dict(sorted(asked.items())),
                "made_by": made_by(
                    "convert libero-vlm",
                    per_image=settings.per_image,
                    frame_stride=settings.frame_stride,
                    category_weights=dict(settings.category_weights),
                    seed=settings.seed,
                    shard_samples=settings.shard_samples,
                    jpeg_quality=settings.jpeg_quality,
                ),
            }
        )


def _pictures(files: Sequence[Path], vocabulary: set[str], frame_stride: int) -> Iterator[LabelledPicture]:
    """Labelled images of all files, one in memory at a time."""
    for path in files:
        if is_scenes_file(path):
            yield from scene_pictures(path, vocabulary)
        else:
            yield from demo_pictures(path, vocabulary, frame_stride)


def _write_picture(
    writer: DatasetWriter,
    picture: LabelledPicture,
    settings: LiberoVLMSettings,
    rng: np.random.Generator,
    asked: Counter[str],
) -> None:
    """Write up to `per_image` different questions about an image. The category furthest below its share comes first."""
    seen: set[str] = set()
    jpeg = encode_jpeg(picture.image, settings.jpeg_quality)
    height, width = picture.image.shape[:2]
    weights = {c: w for c, w in settings.category_weights.items() if w > 0}
    for _ in range(settings.per_image):
        for category in sorted(weights, key=lambda c: (asked[c] / weights[c], ORDER[c])):
            question = ask(picture, category, rng)
            if question is not None and question.question not in seen:
                break
        else:
            continue  # no (new) question applies to this image
        key = f"{picture.key}-q{len(seen)}"
        seen.add(question.question)
        asked[category] += 1
        record = VLMRecord(
            key=key,
            source="libero",
            subset=picture.subset,
            category=question.category,
            task=question.task,
            question=question.question,
            split=picture.split,
            width=width,
            height=height,
            license=LICENSE,
            orig={"view": picture.view, "picture": picture.key},
            **question.answer,
        )
        record.check()
        members = {"jpg": jpeg, "json": encode_json(record.to_json())}
        if question.region is not None:
            members["mask.png"] = encode_mask(question.region)
        writer.add_sample(key, members, _row(record))


def _row(record: VLMRecord) -> dict[str, Any]:
    """The table columns of a record."""
    return {
        "split": record.split,
        "source": record.source,
        "category": record.category,
        "task": record.task,
        "answer_kind": record.answer_kind,
        "question": record.question,
        "answer": record.answer,
        "target_points": [list(p) for p in record.points],
        "target_boxes": [list(b) for b in record.boxes],
        "choice": record.choice,
        "width": record.width,
        "height": record.height,
    }


def _source(path: Path) -> dict[str, Any]:
    """Entry of one input file. The initial states show that no test trial is among the data."""
    with open_hdf5(path) as file:
        scenes = "scene_task" in file
        owner: Any = file if scenes else file["data"]
        states: list[int] = []
        if scenes and "init_state_index" in file:
            states = np.asarray(owner["init_state_index"][()]).tolist()
        elif not scenes:
            indices = [demo.attrs.get("init_state_index") for demo in owner.values()]
            states = [int(index) for index in indices if index is not None]
        text = owner.attrs.get("pokevla_collection")
        collection = json.loads(text) if text is not None else None
        declared = (collection or {}).get("init_states")
        return source_entry(
            path,
            content="scenes" if scenes else "demonstrations",
            init_states=[min(states), max(states) + 1] if states else declared,
            collection=collection,
        )
