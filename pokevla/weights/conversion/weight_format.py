"""What a format of published weights consists of: an entry of `pokevla.parts.WEIGHT_FORMATS` is a `WeightFormat`.

A format has one or more layouts: the same model, stored in different files under different names. The names of a layout
are data (`NameMap`): every tensor of the files has a row or a reason to be left out, and so has every tensor of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pokevla.errors import CheckpointError
from pokevla.weights.conversion.sources import Source, WeightFiles

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """Published names and ours for the same tensors.

    `{1}` to `{9}` stand for a number (of a layer), `{*}` for the rest of a name; both sides hold the same ones. Several
    names on a side belong to one transform, in this order.
    """

    source: str | tuple[str, ...]
    ours: str | tuple[str, ...]
    transform: str = "same"  # entry of pokevla.weights.conversion.transforms.TRANSFORMS


@dataclass(frozen=True)
class Ignored:
    """Entries of published files that are not imported. `source` is a pattern as in `Row`."""

    source: str
    reason: str


@dataclass(frozen=True)
class New:
    """Tensors of ours that the published files do not have: written by `WeightFormat.new`. A pattern as in `Row`."""

    ours: str
    reason: str


@dataclass(frozen=True)
class Duplicate:
    """A second name of a tensor, such as the word head that is tied to the embedding. Import compares the two.

    It counts as a duplicate only while no tensor of ours corresponds to it.
    """

    source: str
    of: str
    written: bool  # by an export of a model that was not imported; one that was gets what its source had


@dataclass(frozen=True)
class NameMap:
    """All names of a layout. The first row that fits a name is taken; `ignored` comes before the rows."""

    rows: tuple[Row, ...]
    ignored: tuple[Ignored, ...] = ()
    new: tuple[New, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()


@dataclass(frozen=True)
class OurModel:
    """A folder of ours that is exported."""

    folder: Path
    content: Mapping[str, Any]  # its config.json
    config: Any  # what `WeightFormat.parse_config` made of it
    record: Mapping[str, Any] | None  # its source.json, if it was imported from this layout

    @property
    def published_config(self) -> Any:
        """The source's own config.json; None if it had none, or the model was not imported from this layout."""
        return None if self.record is None else self.record["config"]


def _write_nothing(_folder: Path, _model: OurModel) -> None:
    return None


@dataclass(frozen=True)
class Layout:
    """One form in which a model is published."""

    title: str
    files: tuple[WeightFiles, ...]
    names: NameMap
    write_others: Callable[[Path, OurModel], None] = _write_nothing
    """(new folder, model): write what lies beside the weights, such as config.json and the tokenizer."""
    other_files: tuple[str, ...] = ("config.json",)
    """Patterns of the files beside the weights that an import reads; they are downloaded with them."""


@dataclass(frozen=True)
class ImportRequest:
    """What a user asked to be imported."""

    kind: str
    source: Source
    preset: str | None = None  # whose sizes are expected; None: those that the source tells
    companions: Mapping[str, Path] = field(default_factory=dict)
    origin: str = ""  # the folder's name, or the id at the hub
    revision: str | None = None  # commit at the hub


@dataclass(frozen=True)
class Companion:
    """Something else that an import can take beside its source, given as `--with NAME=PATH`."""

    title: str
    format: str | None = None  # of its weights; None: it is not weights, and `describe` reads it
    prefix: str = ""  # of our names that it fills
    resampled: tuple[str, ...] = ()
    """Names without the prefix whose (1, grid * grid, width) is resampled to the grid of ours if it is another one."""
    published: str | None = None  # entry of the published models that is this


@dataclass(frozen=True)
class WeightFormat:
    """A kind of published weights: an entry of `pokevla.parts.WEIGHT_FORMATS`. `config` is whatever class it chooses.

    An imported folder holds `model.safetensors` under our names in the types of the source, `config.json`, and
    `source.json` with what the source was.
    """

    title: str
    kind: str  # in the config.json of our folders
    layouts: Mapping[str, Layout]
    read_config: Callable[[ImportRequest], Any]
    """Sizes of the model: from the source's config.json, its shapes, or the preset that the request names."""
    shapes: Callable[[Any], Mapping[str, Shape]]
    """config -> our names and their shapes in the order of the model, tied tensors once. Builds nothing in memory."""
    describe: Callable[[ImportRequest, Any, Path], Mapping[str, Any]]
    """(request, config, new folder) -> content of config.json. Writes what else belongs there, such as a tokenizer."""
    parse_config: Callable[[Any], Any]
    """`model` in the config.json of a folder of ours -> config. Raises UsageError if it is no such config."""
    companions: Mapping[str, Companion] = field(default_factory=dict)
    new: Callable[[Any, str], Any] | None = None
    """(config, our name) -> a tensor for a `New` name."""

    def config_in(self, content: Mapping[str, Any]) -> Any:
        """The config in the config.json of a folder of ours.

        Raises:
            CheckpointError: the folder is of another kind.
            UsageError: a field is missing, unknown or of another type.
        """
        if content.get("kind") != self.kind:
            raise CheckpointError(
                f"This is a {content.get('kind')}, not a {self.kind}.", "Export it as the kind it is."
            )
        return self.parse_config(content.get("model"))

    @property
    def hub_patterns(self) -> list[str]:
        """Patterns of all files that an import can read: what is downloaded for an id at the hub."""
        weights = [name for layout in self.layouts.values() for files in layout.files for name in files.names]
        shards = [name.replace(".index.json", "").replace(".", "-*-of-*.") for name in weights if "index" in name]
        others = [name for layout in self.layouts.values() for name in layout.other_files]
        return list(dict.fromkeys([*weights, *shards, *others]))
