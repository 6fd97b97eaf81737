"""Exports a folder of ours in published layouts. What was imported comes back bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pokevla.errors import CheckpointError, UsageError
from pokevla.files.foreign.torch_archives import StoredTensor
from pokevla.files.ownership import refuse_overlap
from pokevla.files.writing import atomic_folder
from pokevla.runs.directory import EXPORT_WEIGHTS
from pokevla.weights.base_model import exported_folder
from pokevla.weights.conversion.converted import PublishedWeights
from pokevla.weights.conversion.importing import weight_format
from pokevla.weights.conversion.name_maps import duplicates_of, plan_export
from pokevla.weights.conversion.record import read_record
from pokevla.weights.conversion.sources import WeightFiles, entries_of
from pokevla.weights.conversion.weight_format import Layout, OurModel, WeightFormat
from pokevla.weights.export_files import EXPORT_AGAIN, read_export_config, refuse_damaged_export
from pokevla.weights.named_tensors import Weights, WeightSpec
from pokevla.weights.safetensors_files import FREE_SPACE, SINGLE, write_weights

OnProgress = Callable[[int, int], None]


class StoredWeights:
    """Our tensors in a file, in the types in which they are stored."""

    def __init__(self, tensors: Mapping[str, StoredTensor]) -> None:
        self._tensors = tensors
        self.specs = {name: WeightSpec(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}

    def read(self, name: str) -> Tensor:
        """One tensor."""
        return self._tensors[name].read()


class _Renamed:
    """Weights of one file under the names they have in it."""

    def __init__(self, weights: Weights, names: Mapping[str, str]) -> None:
        self._weights, self._names = weights, names
        self.specs = {inner: weights.specs[name] for inner, name in names.items()}

    def read(self, name: str) -> Tensor:
        return self._weights.read(self._names[name])


def export_weights(
    kind: str,
    path: Path,
    out: Path,
    layouts: Sequence[str] = (),
    on_progress: OnProgress = lambda done, total: None,
) -> dict[str, Path]:
    """Write the model at `path` (an exported or imported folder, or a finished run) in layouts of `kind`, atomically.

    Returns the folder of each layout: `out` for one, `out/LAYOUT` for several; all of them if none is named.
    Memory: one tensor, or the model once for a layout in a file of `torch.save`.

    Raises:
        UsageError: there is no such kind or layout, or `out` overlaps the model.
        CheckpointError: `out` exists, or the model is of another kind, damaged or incomplete.
        DiskFullError: there is no room.
    """
    format_ = weight_format(kind)
    if unknown := [name for name in layouts if name not in format_.layouts]:
        raise UsageError(f"{kind} has no layout {unknown[0]!r}.", f"It has {', '.join(format_.layouts)}.")
    chosen = list(dict.fromkeys(layouts)) or list(format_.layouts)
    refuse_overlap(out, [path])
    model, ours = _open_ours(kind, format_, exported_folder(path))
    with atomic_folder(out, kind=CheckpointError, remedy=FREE_SPACE) as new:
        for name in chosen:
            folder = new if len(chosen) == 1 else new / name
            folder.mkdir(exist_ok=True)
            record = model.record if model.record is not None and model.record["layout"] == name else None
            layout = format_.layouts[name]
            weights = _published(layout, ours, record, model.folder)
            _write_files(layout.files, weights, folder, on_progress)
            layout.write_others(folder, OurModel(model.folder, model.content, model.config, record))
    return {name: out if len(chosen) == 1 else out / name for name in chosen}


def _open_ours(kind: str, format_: WeightFormat, folder: Path) -> tuple[OurModel, StoredWeights]:
    refuse_damaged_export(folder)
    content = read_export_config(folder)
    config = format_.config_in(content)
    tensors = {
        name: value for name, value in entries_of(folder / EXPORT_WEIGHTS).items() if isinstance(value, StoredTensor)
    }
    shapes = format_.shapes(config)
    if misfit := next((name for name in {**shapes, **tensors} if _shape_of(tensors, name) != shapes.get(name)), None):
        raise CheckpointError(
            f"{folder}: {misfit} has shape {_shape_of(tensors, misfit)}, its config.json says {shapes.get(misfit)}.",
            EXPORT_AGAIN,
        )
    record = read_record(folder)
    if record is not None and record["kind"] != kind:
        record = None
    return OurModel(folder, content, config, record), StoredWeights({name: tensors[name] for name in shapes})


def _shape_of(tensors: Mapping[str, StoredTensor], name: str) -> tuple[int, ...] | None:
    return tensors[name].shape if name in tensors else None


def _published(layout: Layout, ours: Weights, record: Mapping[str, Any] | None, folder: Path) -> PublishedWeights:
    """The tensors that the layout has; of an imported model exactly those that its source had."""
    moves = plan_export(layout.names, ours.specs, folder)
    if record is not None:
        moves = [move for move in moves if all(name in record["tensors"] for name in move.sources)]
    published = [name for move in moves for name in move.sources]
    seconds = {
        second: name
        for row, second, name in duplicates_of(layout.names, published)
        if (row.written if record is None else second in record["tensors"])
    }
    weights = PublishedWeights(ours, moves, seconds)
    if record is not None and (lost := [name for name in record["tensors"] if name not in weights.specs]):
        raise CheckpointError(f"{folder} was imported with {lost[0]}, which this format cannot write.", "Report this.")
    return weights


def _write_files(layout: Sequence[WeightFiles], weights: Weights, folder: Path, on_progress: OnProgress) -> None:
    groups: dict[WeightFiles, dict[str, str]] = {}
    for name in weights.specs:
        files = max((one for one in layout if name.startswith(one.prefix)), key=lambda one: len(one.prefix))
        groups.setdefault(files, {})[name.removeprefix(files.prefix)] = name
    for files, names in groups.items():
        path = folder / files.names[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _Renamed(weights, names)
        if path.name == SINGLE:
            write_weights(part, path.parent, metadata={}, on_progress=on_progress, remedy=EXPORT_AGAIN)
        else:
            torch.save(_nested(part, files.nesting), path)


def _nested(weights: Weights, depth: int) -> dict[str, Any]:
    """All tensors, in mappings of `depth` levels. Equal tensors under two names are stored once, as torch does."""
    content: dict[str, Any] = {}
    for name in weights.specs:
        *path, last = name.split(".", depth)
        level = content
        for key in path:
            level = level.setdefault(key, {})
        level[last] = weights.read(name)
    return content
