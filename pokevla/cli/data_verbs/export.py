"""`pokevla data export`: datasets in other projects' formats."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pokevla.cli.progress import progress


class ImageKind(StrEnum):
    """How an export stores images."""

    VIDEO = "video"
    IMAGE = "image"


app = typer.Typer(no_args_is_help=True, help="Write a dataset in another project's format.", rich_markup_mode=None)


@app.callback()
def _export() -> None:
    """Write a dataset in another project's format."""


@app.command()
def lerobot(
    dataset: Annotated[Path, typer.Argument(help="Robot dataset directory.")],
    out: Annotated[Path, typer.Argument(help="Folder of the LeRobot dataset to write; it must not exist.")],
    images: Annotated[
        ImageKind, typer.Option(help="H.264 videos, or the JPEGs as they are, within the tables.")
    ] = ImageKind.VIDEO,
) -> None:
    """Write a robot dataset in LeRobot's format v3.0. Actions and proprio stay exactly the same."""
    from pokevla.data.dataset import open_dataset
    from pokevla.data.recordings.lerobot.export import export_lerobot

    opened = open_dataset(dataset)
    if opened.has_masks:
        typer.echo("note: masks have no place in LeRobot's format: they are left out", err=True)
    with progress("episodes") as on_episode:
        export_lerobot(opened, out, images.value, on_episode)
    typer.echo(f"{out}: {opened.info['num_episodes']} episodes, {opened.info['num_samples']} frames, LeRobot v3.0")
