"""Converters of `pokevla data convert` for published question sets. All have the same options."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pokevla.cli.data_verbs.converters import print_made, print_note
from pokevla.cli.progress import progress


class BoxOrderRule(StrEnum):
    """What the four numbers of a box are."""

    DATA = "data"
    XYXY = "xyxy"
    XYWH = "xywh"


def published(part: str | Any, summary: str) -> Callable[..., None]:
    """A converter of a question set, for `pokevla.parts.DATA_SOURCES`.

    Args:
        part: a `Source` (pokevla.data.curation.drafts), or where it is: `module:attribute`.
        summary: its help in one sentence.
    """

    def convert(
        source: Annotated[Path, typer.Argument(help="Folder of the unpacked source (docs/data.md).")],
        out: Annotated[Path, typer.Argument(help="Dataset directory to write.")],
        max_side: Annotated[
            int, typer.Option(min=32, max=4096, help="Images with a longer side are reduced to it, in pixels.")
        ] = 640,
        jpeg_quality: Annotated[
            int, typer.Option(min=1, max=100, help="JPEG quality of images that are not small JPEGs already.")
        ] = 95,
        max_text: Annotated[int, typer.Option(min=1, help="Longest question or answer in characters.")] = 16384,
        val_every: Annotated[
            int, typer.Option(min=0, help="Every Nth image is of the split `val`, chosen by its name; 0: none.")
        ] = 0,
        shard_samples: Annotated[int, typer.Option(min=1, help="Samples per shard.")] = 1024,
        box_order: Annotated[
            BoxOrderRule, typer.Option(help="Numbers of boxes, for a file whose data do not decide it.")
        ] = BoxOrderRule.DATA,
        max_rejected: Annotated[
            float, typer.Option(min=0.0, max=1.0, help="Share of the records that may be rejected.")
        ] = 0.5,
        allow_damaged: Annotated[
            bool, typer.Option("--allow-damaged", help="Use only the rows before the place where a file is cut off.")
        ] = False,
        workers: Annotated[
            int, typer.Option(min=0, help="Processes; the result does not depend on it. 0: this process, where a "
                              "decoder that crashes ends the conversion."),
        ] = 1,
        chunk_timeout: Annotated[
            float, typer.Option(min=1.0, help="Seconds that 256 rows may take before their process is ended.")
        ] = 1800.0,
        part_of: Annotated[
            str, typer.Option("--slice", help="I/N: only convert every Nth chunk from I on, for a job array. Run "
                              "the command without it afterwards, to put the dataset together."),
        ] = "",
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Replace OUT if it exists, once the new dataset is complete.")
        ] = False,
    ) -> None:  # fmt: skip
        from pokevla.data.curation.conversion import CurationSettings

        chosen = _load(part)
        settings = CurationSettings(
            out, max_side, jpeg_quality, max_text, val_every, shard_samples, box_order.value, max_rejected,
            allow_damaged, workers, chunk_timeout, overwrite, f"convert {chosen.name}",
        )  # fmt: skip
        run_curation(chosen, source, settings, part_of)

    convert.__doc__ = f"{summary} A command that was killed goes on after its finished rows."
    return convert


def _load(part: str | Any) -> Any:
    if not isinstance(part, str):
        return part
    import importlib

    module, _, attribute = part.partition(":")
    return getattr(importlib.import_module(module), attribute)


def run_curation(source: Any, root: Path, settings: Any, part_of: str) -> None:
    """Convert with a progress bar, and print what was noticed and made; or only make the slice `part_of`, I/N."""
    from pokevla.data.curation.conversion import convert_source, prepare_slice
    from pokevla.errors import UsageError

    with progress("rows") as on_rows:
        if not part_of:
            convert_source(source, root, settings, on_rows, print_note)
        else:
            match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", part_of)
            if match is None:
                raise UsageError(f"--slice {part_of}: not of the form I/N.", "Write --slice 0/8 to 7/8.")
            count = prepare_slice(source, root, settings, int(match[1]), int(match[2]), on_rows)
    if part_of:
        typer.echo(f"slice {part_of}: {count} rows are ready. Without --slice the dataset is put together.")
    else:
        print_made(settings.out)


_SOURCES = "pokevla.data.curation.sources"
convert_llava = published(f"{_SOURCES}.llava:LLAVA", "Convert LLaVA-Instruct-665K: general questions.")
convert_robopoint = published(f"{_SOURCES}.robopoint:ROBOPOINT", "Convert RoboPoint: points and boxes.")
convert_refspatial = published(f"{_SOURCES}.refspatial:REFSPATIAL", "Convert RefSpatial: points and choices.")
convert_refspatial_reasoning = published(
    f"{_SOURCES}.refspatial:REFSPATIAL_REASONING", "Convert the reasoning part of RefSpatial."
)
convert_roborefit = published(f"{_SOURCES}.roborefit:ROBOREFIT", "Convert RoboRefIt: boxes and points in clutter.")
convert_robospatial = published(f"{_SOURCES}.robospatial:ROBOSPATIAL", "Convert output of RoboSpatial's generator.")
convert_hova_ego4d = published(f"{_SOURCES}.hova:HOVA_EGO4D", "Convert HOVA-500K, part Ego4D: contact points.")
convert_hova_epic100 = published(f"{_SOURCES}.hova:HOVA_EPIC100", "Convert HOVA-500K, part EPIC-KITCHENS-100.")
convert_molmoact = published(f"{_SOURCES}.molmoact:MOLMOACT", "Convert MolmoAct's traces of the gripper.")
convert_cosmos = published(f"{_SOURCES}.cosmos:COSMOS", "Convert Cosmos-Reason1, part agibot: reasoning.")
