"""`pokevla data convert libero-vlm`: writes questions about LIBERO scenes and demonstration frames.

The answers are derived from instance masks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.dataset import refuse_output
from pokevla.data.records import CATEGORIES, VLMRecord
from pokevla.data.sources.alignment import Alignment
from pokevla.data.sources.aspect import Aspect, Squares
from pokevla.data.sources.demonstrations import DATA, SUFFIX, DemoFile, describe, image_sizes, init_state_index
from pokevla.data.sources.images import JPEG_QUALITY, encode_jpeg, encode_mask
from pokevla.data.sources.pictures import (
    LabelledPicture,
    SceneFile,
    demo_pictures,
    describe_scenes,
    is_scenes_file,
    scene_pictures,
)
from pokevla.data.sources.provenance import made_by, source_entry
from pokevla.data.sources.questions import ask
from pokevla.data.sources.skips import Skips
from pokevla.data.sources.tasks import phrase
from pokevla.data.tables.questions import SAMPLE_SCHEMA
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.errors import DataError, UsageError
from pokevla.files.finding import find_files
from pokevla.files.foreign.hdf5 import Hdf5File, hdf5_reader
from pokevla.files.foreign.process import READ_TIMEOUT_S, ForeignReader

LICENSE = "CC-BY-4.0"
"""Licence of LIBERO's data. The images are renderings of its scenes."""
ORDER = {category: place for place, category in enumerate(CATEGORIES)}


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
    alignment: Alignment | None = None
    """As in `LiberoSettings`."""
    aspect: Aspect = "stretch"
    """How images that are not square become square (`aspect.py`)."""
    max_skipped: float = 0.0
    """Largest share of episodes and scenes that may be left out because they cannot be read or hold bad numbers."""
    read_timeout_s: float = READ_TIMEOUT_S
    """How long one read of a source may take before the file counts as damaged."""


def convert_libero_vlm(
    settings: LiberoVLMSettings,
    on_picture: Callable[[int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Path:
    """Write a VLM dataset from scenes and demonstration files and return its directory.

    Calls `on_picture(done)` after each image, and `on_note` with a line for everything passed over. Raises DataError
    for files that are damaged, have another layout or lack masks, and UsageError if the weights sum to 0. Also raises
    what `refuse_output` raises.
    """
    if sum(settings.category_weights.values()) <= 0 or set(settings.category_weights) - set(CATEGORIES):
        raise UsageError(f"category weights must be of {', '.join(CATEGORIES)} and not all 0.")
    found = [find_files(source, SUFFIX) for source in settings.sources]
    inputs = [*settings.sources, *(path for each in found for path in each.files)]
    refuse_output(settings.out, inputs, overwrite=settings.overwrite)
    with hdf5_reader(settings.read_timeout_s) as reader:
        files = [_header(path, reader, settings.alignment) for each in found for path in each.files]
        units = sum(len(file.splits if isinstance(file, SceneFile) else file.demo_names) for file in files)
        skips = Skips(settings.max_skipped, units, "episodes and scenes")
        root = _convert(settings, files, reader, skips, on_picture)
    if on_note is not None:
        for note in [*(note for each in found for note in each.notes()), *skips.notes()]:
            on_note(note)
    return root


def _header(path: Path, reader: ForeignReader, alignment: Alignment | None) -> SceneFile | DemoFile:
    return describe_scenes(path, reader) if is_scenes_file(path, reader) else describe(path, reader, alignment)


def _convert(
    settings: LiberoVLMSettings,
    files: Sequence[SceneFile | DemoFile],
    reader: ForeignReader,
    skips: Skips,
    on_picture: Callable[[int], None] | None,
) -> Path:
    rng = np.random.Generator(np.random.Philox(settings.seed))
    asked: Counter[str] = Counter()
    with DatasetWriter(
        settings.out,
        group="libero_vlm",
        samples=SAMPLE_SCHEMA,
        shard_samples=settings.shard_samples,
        overwrite=settings.overwrite,
    ) as writer:
        for number, picture in enumerate(_pictures(settings, files, reader, skips)):
            _write_picture(writer, picture, settings, rng, asked)
            if on_picture is not None:
                on_picture(number + 1)
        return writer.finish(
            {
                "statistics": None,
                "sources": [_source(file, reader) for file in files],
                "categories": dict(sorted(asked.items())),
                **skips.info(),
                "made_by": made_by(
                    "convert libero-vlm",
                    per_image=settings.per_image,
                    frame_stride=settings.frame_stride,
                    category_weights=dict(settings.category_weights),
                    seed=settings.seed,
                    shard_samples=settings.shard_samples,
                    jpeg_quality=settings.jpeg_quality,
                    alignment=settings.alignment,
                    aspect=settings.aspect,
                ),
            }
        )


def _pictures(
    settings: LiberoVLMSettings, files: Sequence[SceneFile | DemoFile], reader: ForeignReader, skips: Skips
) -> Iterator[LabelledPicture]:
    """Labelled images of all files, one episode in memory at a time."""
    vocabulary = {phrase(instance) for file in files for instance in _instances(file)}
    for file in files:
        # Questions are about one image, so files may have images of different sizes here.
        if isinstance(file, SceneFile):
            squares = Squares.of([file.image_size], settings.aspect)
            yield from scene_pictures(file, vocabulary, squares, reader, skips)
        else:
            squares = Squares.of(image_sizes(file, reader), settings.aspect)
            yield from demo_pictures(file, vocabulary, settings.frame_stride, squares, reader, skips)


def _instances(file: SceneFile | DemoFile) -> set[str]:
    """The instances that a file names."""
    if isinstance(file, SceneFile):
        return {name for names in file.instances.values() for name in names}
    return set(file.instances or ())


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


def _source(header: SceneFile | DemoFile, reader: ForeignReader) -> dict[str, Any]:
    """Entry of one input file. The initial states show that no test trial is among the data."""
    file = Hdf5File(header.path, reader)
    if isinstance(header, SceneFile):
        states = file.read("init_state_index").tolist() if "init_state_index" in file else []
        collection = file.json_attribute("", "pokevla_collection")
    else:
        indices = [init_state_index(file, f"{DATA}/{name}") for name in header.demo_names]
        states = [index for index in indices if index is not None]
        collection = header.collection
    if not isinstance(collection, dict | None):
        raise DataError(f"{header.path}: attribute `pokevla_collection` is not a JSON object.")
    return source_entry(
        header.path,
        content="scenes" if isinstance(header, SceneFile) else "demonstrations",
        init_states=[min(states), max(states) + 1] if states else (collection or {}).get("init_states"),
        collection=collection,
    )
