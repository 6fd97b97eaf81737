"""Converters of `pokevla data convert` for published question sets. All have the same options; some have more."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pokevla.cli.data_verbs.converters import print_made, print_note
from pokevla.cli.data_verbs.rewriting import worded
from pokevla.cli.progress import progress


class BoxOrderRule(StrEnum):
    """What the four numbers of a box are."""

    DATA = "data"
    XYXY = "xyxy"
    XYWH = "xywh"


_Folder = Annotated[Path, typer.Argument(help="Folder of the unpacked source (docs/data.md).")]
_Out = Annotated[Path, typer.Argument(help="Dataset directory to write.")]
_MaxSide = Annotated[
    int, typer.Option(min=32, max=4096, help="Images with a longer side are reduced to it, in pixels.")
]
_JpegQuality = Annotated[
    int, typer.Option(min=1, max=100, help="JPEG quality of images that are not small JPEGs already.")
]
_MaxText = Annotated[int, typer.Option(min=1, help="Longest question or answer in characters.")]
_ValEvery = Annotated[
    int, typer.Option(min=0, help="Every Nth image is of the split `val`, chosen by its name; 0: none.")
]
_ShardSamples = Annotated[int, typer.Option(min=1, help="Samples per shard.")]
_BoxOrder = Annotated[BoxOrderRule, typer.Option(help="Numbers of boxes, for a file whose data do not decide it.")]
_MaxRejected = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the records that may be rejected.")]
_AllowDamaged = Annotated[
    bool, typer.Option("--allow-damaged", help="Use only the rows before the place where a file is cut off.")
]
_Workers = Annotated[
    int,
    typer.Option(
        min=0,
        help="Processes; the result does not depend on it. 0: this process, where a decoder that crashes ends the "
        "conversion.",
    ),
]
_ChunkTimeout = Annotated[
    float, typer.Option(min=1.0, help="Seconds that 256 rows may take before their process is ended.")
]
_Slice = Annotated[
    str,
    typer.Option(
        "--slice",
        help="I/N: only convert every Nth chunk from I on, for a job array. Run the command without it afterwards, to "
        "put the dataset together.",
    ),
]
_Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace OUT if it exists, once the new dataset is complete.")
]


def published(
    part: str | Any, summary: str, prepare: Callable[..., tuple[Any, dict[str, Any]]] | None = None
) -> Callable[..., None]:
    """A converter of a question set, for `pokevla.parts.DATA_SOURCES`.

    Args:
        part: a `Source` (pokevla.data.curation.drafts), or where it is: `module:attribute`.
        summary: its help in one sentence.
        prepare: (source, its folder, `CurationSettings`, further options) -> the source to convert, and its
            `source_options`. The parameters after the first three become options of the command.
    """

    def convert(
        source: _Folder,
        out: _Out,
        max_side: _MaxSide = 640,
        jpeg_quality: _JpegQuality = 95,
        max_text: _MaxText = 16384,
        val_every: _ValEvery = 0,
        shard_samples: _ShardSamples = 1024,
        box_order: _BoxOrder = BoxOrderRule.DATA,
        max_rejected: _MaxRejected = 0.5,
        allow_damaged: _AllowDamaged = False,
        workers: _Workers = 1,
        chunk_timeout: _ChunkTimeout = 1800.0,
        part_of: _Slice = "",
        overwrite: _Overwrite = False,
        **further: Any,
    ) -> None:
        from pokevla.data.curation.conversion import CurationSettings

        chosen, place = _load(part), read_slice(part_of)
        settings = CurationSettings(
            out, max_side, jpeg_quality, max_text, val_every, shard_samples, box_order.value, max_rejected,
            allow_damaged, workers, chunk_timeout, overwrite, f"convert {chosen.name}",
        )  # fmt: skip
        if prepare is not None:
            chosen, options = prepare(chosen, source, settings, **further)
            settings = replace(settings, source_options=options)
        run_curation(chosen, source, settings, place)

    convert.__doc__ = f"{summary} A command that was killed goes on after its finished rows."
    _take_options(convert, prepare)
    return convert


def _take_options(convert: Any, prepare: Callable[..., Any] | None) -> None:
    """Replace `**further` of a converter by the options of `prepare`, for typer, which reads the signature."""
    own = inspect.signature(convert, eval_str=True)
    parameters = [each for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    if prepare is not None:
        parameters += list(inspect.signature(prepare, eval_str=True).parameters.values())[3:]
    convert.__signature__ = own.replace(parameters=parameters)
    convert.__annotations__ = {each.name: each.annotation for each in parameters}


def _load(part: str | Any) -> Any:
    if not isinstance(part, str):
        return part
    import importlib

    module, _, attribute = part.partition(":")
    return getattr(importlib.import_module(module), attribute)


def read_slice(text: str) -> tuple[int, int] | None:
    """I and N of `I/N`; None for an empty text. Raises UsageError for another form."""
    from pokevla.errors import UsageError

    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None and text:
        raise UsageError(f"--slice {text}: not of the form I/N.", "Write --slice 0/8 to 7/8.")
    return (int(match[1]), int(match[2])) if match is not None else None


def run_curation(source: Any, root: Path, settings: Any, place: tuple[int, int] | None) -> None:
    """Convert with a progress bar, and print what was noticed and made; or only make the slice `place`, I and N."""
    from pokevla.data.curation.conversion import convert_source, prepare_slice

    with progress("rows") as on_rows:
        if place is None:
            convert_source(source, root, settings, on_rows, print_note)
        else:
            count = prepare_slice(source, root, settings, *place, on_rows)
            made = f"slice {place[0]}/{place[1]}: {count} rows are ready. Without --slice the dataset is put together."
    if place is None:
        print_made(settings.out)
    else:
        typer.echo(made)


_SOURCES = "pokevla.data.curation.sources"
convert_llava = published(f"{_SOURCES}.llava:LLAVA", "Convert LLaVA-Instruct-665K: general questions.")
convert_robopoint = published(f"{_SOURCES}.robopoint:ROBOPOINT", "Convert RoboPoint: points and boxes.")
convert_refspatial = published(f"{_SOURCES}.refspatial:REFSPATIAL", "Convert RefSpatial: points and choices.")
convert_refspatial_reasoning = published(
    f"{_SOURCES}.refspatial:REFSPATIAL_REASONING", "Convert the reasoning part of RefSpatial."
)
convert_roborefit = published(f"{_SOURCES}.roborefit:ROBOREFIT", "Convert RoboRefIt: boxes and points in clutter.")
convert_robospatial = published(f"{_SOURCES}.robospatial:ROBOSPATIAL", "Convert output of RoboSpatial's generator.")
convert_hova_ego4d = published(f"{_SOURCES}.hova:HOVA_EGO4D", "Convert HOVA-500K, part Ego4D: contact points.", worded)
convert_hova_epic100 = published(f"{_SOURCES}.hova:HOVA_EPIC100", "Convert HOVA-500K, part EPIC-KITCHENS-100.", worded)
convert_molmoact = published(f"{_SOURCES}.molmoact:MOLMOACT", "Convert MolmoAct's traces of the gripper.")
convert_cosmos = published(f"{_SOURCES}.cosmos:COSMOS", "Convert Cosmos-Reason1, part agibot: reasoning.")
