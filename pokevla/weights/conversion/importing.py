"""Imports published weights: a folder of ours with the source's tensors under our names, in their own types.

OUT/model.safetensors   weights, written one tensor at a time
OUT/config.json         kind and sizes, with a checksum of the weights
OUT/source.json         what the source was: layout, revision, every tensor with shape and type, what was left out
OUT/...                 what the format adds, such as tokenizer/
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pokevla.errors import CheckpointError, UsageError
from pokevla.files.checksums import measure_file, with_checksum
from pokevla.files.ownership import refuse_overlap
from pokevla.files.texts import write_json
from pokevla.files.writing import atomic_folder
from pokevla.parts import WEIGHT_FORMATS, get_part
from pokevla.runs.directory import EXPORT_CONFIG, EXPORT_WEIGHTS
from pokevla.weights.conversion.converted import ImportedWeights, JoinedWeights
from pokevla.weights.conversion.name_maps import Plan, ours_of, plan_import, refuse_different
from pokevla.weights.conversion.record import SOURCE, source_record
from pokevla.weights.conversion.sources import Source, find_files, open_files
from pokevla.weights.conversion.weight_format import Ignored, ImportRequest, NameMap, Row, Shape, WeightFormat
from pokevla.weights.export_files import FILES
from pokevla.weights.named_tensors import Weights
from pokevla.weights.safetensors_files import FREE_SPACE, write_weights

SCHEMA_VERSION = 1
_USE_ANOTHER = "Get the file again from where it was published."
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class ImportReport:
    """What an import has written."""

    title: str
    layout: str
    num_tensors: int
    num_parameters: int
    ignored: Mapping[str, str]  # published name -> reason
    new: Mapping[str, str]  # our name -> reason


def weight_format(kind: str) -> WeightFormat:
    """The format of this name. UsageError if there is none."""
    if kind not in WEIGHT_FORMATS:
        raise UsageError(f"there is no kind of weights {kind!r}.", f"Choose one of {', '.join(WEIGHT_FORMATS)}.")
    return get_part("weights", kind, WEIGHT_FORMATS)


def open_source(kind: str, place: Path) -> Source:
    """Open the files at `place` (a folder or a file) in the layout of this kind that fits them.

    Raises:
        CheckpointError: nothing is there, no layout finds its files, or a file is damaged or unsafe.
    """
    format_ = weight_format(kind)
    if not place.exists():
        raise CheckpointError(f"{place} does not exist.", "Check the path.")
    sources = [
        open_files(place, name, found)
        for name, layout in format_.layouts.items()
        if (found := find_files(place, layout.files)) is not None
    ]
    if not sources:
        wanted = "; or ".join(
            f"{' and '.join(files.names[0] for files in layout.files if files.required)} ({layout.title})"
            for layout in format_.layouts.values()
        )
        raise CheckpointError(f"{place} holds no weights of {format_.title}.", f"A folder holds {wanted}.")
    return min(sources, key=lambda source: _num_strange(source, format_.layouts[source.layout].names))


def _num_strange(source: Source, names: NameMap) -> int:
    """How many tensors have no row: tells which layout fits."""
    return sum(ours_of(name, names) is None for name in source.tensors)


def import_weights(
    request: ImportRequest, out: Path, on_progress: OnProgress = lambda done, total: None
) -> ImportReport:
    """Write the folder `out`, atomically. Memory: the largest tensor, and what a row joins.

    Raises:
        UsageError: `out` overlaps the source, or a companion is not one of this kind.
        CheckpointError: `out` exists; or the source has an entry without use, lacks one, or has another size (the
            message names the tensor and its shape); or it is damaged or unsafe.
        DiskFullError: there is no room.
    """
    format_ = weight_format(request.kind)
    source, layout = request.source, format_.layouts[request.source.layout]
    refuse_overlap(out, [source.place, *request.companions.values()])
    _check_companions(request, format_)
    config = format_.read_config(request)
    targets = dict(format_.shapes(config))
    plan, weights = _planned(request, format_, config, targets)
    with atomic_folder(out, kind=CheckpointError, remedy=FREE_SPACE) as new:
        write_weights(weights, new, metadata={"kind": request.kind}, on_progress=on_progress, remedy=_USE_ANOTHER)
        content = dict(format_.describe(request, config, new))
        write_json(new / SOURCE, with_checksum(source_record(request, plan)), sort_keys=True)
        content |= {
            "schema_version": SCHEMA_VERSION,
            FILES: [asdict(measure_file(new, name)) for name in (EXPORT_WEIGHTS, SOURCE)],
        }
        write_json(new / EXPORT_CONFIG, with_checksum(content), sort_keys=True)
    count = sum(spec.numel for spec in weights.specs.values())
    return ImportReport(format_.title, layout.title, len(weights.specs), count, plan.ignored, plan.new)


def _planned(
    request: ImportRequest, format_: WeightFormat, config: Any, targets: Mapping[str, Shape]
) -> tuple[Plan, Weights]:
    """The plan of the main source, and the weights of it and its companions under all of our names."""
    parts: list[tuple[str, Weights]] = []
    filled: set[str] = set()
    for name, path in request.companions.items():
        companion = format_.companions[name]
        if companion.format is None:
            continue
        inner = {
            ours.removeprefix(companion.prefix): shape
            for ours, shape in targets.items()
            if ours.startswith(companion.prefix)
        }
        parts.append((companion.prefix, open_part(companion.format, path, inner, companion.resampled)))
        filled |= {companion.prefix + ours for ours in inner}
    rest = {name: shape for name, shape in targets.items() if name not in filled}
    plan = plan_import(format_.layouts[request.source.layout].names, request.source, rest, format_.title)
    make = format_.new
    new = None if make is None else (lambda name: make(config, name))
    for second, first in plan.duplicates.items():
        refuse_different(request.source, first, second)
    parts.append(("", ImportedWeights(request.source, plan, rest, new)))
    return plan, JoinedWeights(parts, targets)


def _check_companions(request: ImportRequest, format_: WeightFormat) -> None:
    """Refuse companions that this kind does not take or the source already holds, and tell which it needs.

    Raises:
        UsageError: a companion is too much.
        CheckpointError: the source leaves out a part, and no companion gives it.
    """
    if unknown := [name for name in request.companions if name not in format_.companions]:
        raise UsageError(
            f"{request.kind} takes no companion {unknown[0]!r}.",
            f"It takes {', '.join(format_.companions) or 'none'}.",
        )
    source, names = request.source, format_.layouts[request.source.layout].names
    held = [ours for name in source.tensors for ours in ours_of(name, names) or ()]
    lacking = []
    for name, companion in format_.companions.items():
        if companion.format is None:
            continue
        is_held = any(ours.startswith(companion.prefix) for ours in held)
        if is_held and name in request.companions:
            raise UsageError(f"{source.place} already holds {companion.title}.", f"Leave out --with {name}.")
        if not is_held and name not in request.companions:
            lacking.append(name)
    if lacking:
        raise CheckpointError(
            f"{source.place} does not hold {' and '.join(format_.companions[name].title for name in lacking)}.",
            f"Add {' '.join(f'--with {name}=PATH' for name in lacking)}" + _where_from(format_, lacking),
        )


def _where_from(format_: WeightFormat, companions: list[str]) -> str:
    names = [published for name in companions if (published := format_.companions[name].published)]
    return f" (pokevla models get {' '.join(names)})." if names else "."


def open_part(
    kind: str,
    place: Path,
    targets: Mapping[str, Shape],
    resampled: tuple[str, ...] = (),
    left_out: tuple[str, ...] = (),
) -> Weights:
    """Weights of one part that a larger model is assembled from, under the part's own names.

    `targets` are its names and shapes; the grids of `resampled` may have another size in the files; `left_out` are
    patterns of published names that belong to other parts. Raises what `open_source` and `plan_import` raise.
    """
    format_ = weight_format(kind)
    source = open_source(kind, place)
    names = format_.layouts[source.layout].names
    for name in resampled:
        rows = (Row(name, name, "resample_grid"), *names.rows)
        if name in source.tensors and name in targets and source.tensors[name].shape != targets[name]:
            names = NameMap(rows, names.ignored, names.new, names.duplicates)
    others = tuple(Ignored(pattern, "belongs to another part") for pattern in left_out)
    plan = plan_import(dataclasses.replace(names, ignored=(*others, *names.ignored)), source, targets, format_.title)
    for second, first in plan.duplicates.items():
        refuse_different(source, first, second)
    return ImportedWeights(source, plan, targets)
