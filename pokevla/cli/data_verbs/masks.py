"""`pokevla data masks`: add the masks that published demonstrations lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pokevla.cli.data_verbs.converters import AlignmentOption, print_note
from pokevla.cli.progress import progress

if TYPE_CHECKING:
    from pokevla.data.sources.alignment import Alignment
    from pokevla.simulation.recordings.stored_episodes import DemoSource


def masks(
    source: Annotated[Path, typer.Argument(help="LIBERO demonstration HDF5 file, or a directory of them.")],
    out: Annotated[Path, typer.Argument(help="Directory for the copies with masks: OUT/<suite>/<file name>.")],
    workers: Annotated[int, typer.Option(min=1, help="Simulator processes; the result does not depend on it.")] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that OUT already holds.")] = False,
    max_skipped: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the episodes of a file that may be left out because states and "
            "images do not match; above it the file is refused.",
        ),
    ] = 0.5,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=16,
            max=1024,
            help="Draw the images anew as well, with this side in pixels. Default: masks only, of the stored size.",
        ),
    ] = None,
    alignment: AlignmentOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay the states of LIBERO demonstrations and write copies of the files with instance masks of both views."""
    from pokevla.simulation.recordings.mask_files import add_masks

    files = replay_sources(source, out, alignment.value if alignment is not None else None)
    with progress("episodes") as listen:
        reports = add_masks(
            files,
            workers,
            image_size=image_size,
            overwrite=overwrite,
            max_skipped=max_skipped,
            on_progress=lambda done, left_out, total: listen(done, total, left_out),
        )
    if as_json:
        typer.echo(json.dumps([report.to_dict() for report in reports]))
        return
    for report in reports:
        how = "already done" if report.is_earlier else "written"
        typer.echo(f"{report.path}: {report.kept} episodes with masks, {len(report.left_out)} left out, {how}")
        for demo, complaint in report.left_out.items():
            typer.echo(f"  left out {demo}: {complaint}")


def replay_sources(source: Path, out: Path, alignment: Alignment | None) -> list[DemoSource]:
    """Files to replay. DataError for one that is damaged or belongs to no task of the four suites; UsageError if OUT
    overlaps the source."""
    from pokevla.data.sources.demonstrations import SUFFIX, describe
    from pokevla.errors import DataError
    from pokevla.files.finding import find_files
    from pokevla.files.foreign.hdf5 import hdf5_reader
    from pokevla.files.ownership import refuse_overlap
    from pokevla.simulation.recordings.stored_episodes import DemoSource

    found, files = find_files(source, SUFFIX), []
    refuse_overlap(out, [source, *found.files])
    with hdf5_reader() as reader:
        for path in found.files:
            header = describe(path, reader, alignment)
            if header.task_index is None:
                raise DataError(
                    f"{path} is not named after a task of the four LIBERO suites.",
                    "Keep the published name of the file.",
                )
            target = out / header.suite / path.name
            files.append(
                DemoSource(
                    path, target, header.suite, header.task_index, header.demo_names, header.alignment == "before"
                )
            )
    for note in found.notes():
        print_note(note)
    return files
