"""Converters of `pokevla data convert`: one function for each kind of source, its parameters are the options.

They are entries of `pokevla.parts.DATA_SOURCES`.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pokevla.cli.progress import progress


class Noops(StrEnum):
    """What happens to frames without motion."""

    AUTO = "auto"
    DROP = "drop"
    KEEP = "keep"


_Out = Annotated[Path, typer.Argument(help="Dataset directory to make.")]
_ShardSamples = Annotated[int, typer.Option(min=1, help="Samples per shard.")]
_Quality = Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists, once the new one is whole.")]


def convert_libero(
    source: Annotated[Path, typer.Argument(help="Demonstration HDF5, or a folder of them (published ones or ours).")],
    out: _Out,
    shard_samples: _ShardSamples = 256,
    jpeg_quality: _Quality = 95,
    val_fraction: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of episodes for split `val` where a file names none.")
    ] = 0.0,
    noops: Annotated[
        Noops, typer.Option(help="Frames without motion; auto drops them in published files and keeps them in ours.")
    ] = Noops.AUTO,
    overwrite: _Overwrite = False,
) -> None:
    """Turn LIBERO demonstrations into a robot dataset: no-op filter, shards, index, tables, statistics."""
    from pokevla.data.sources import libero

    settings = libero.LiberoSettings(source, out, shard_samples, jpeg_quality, val_fraction, overwrite, noops.value)
    with progress("episodes") as on_episode:
        libero.convert_libero(settings, on_episode)
    print_made(out)


def convert_libero_vlm(
    sources: Annotated[list[Path], typer.Argument(metavar="SRC... OUT", help="Scenes or demonstrations, then OUT.")],
    per_image: Annotated[int, typer.Option(min=1, help="Questions per picture.")] = 4,
    frame_stride: Annotated[int, typer.Option(min=1, help="Every how-manieth rendered frame of an episode.")] = 8,
    weight: Annotated[
        list[str] | None, typer.Option(help="Share of a category, such as grounding=2; may be given several times.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of templates and objects.")] = 0,
    shard_samples: _ShardSamples = 256,
    jpeg_quality: _Quality = 95,
    overwrite: _Overwrite = False,
) -> None:
    """Turn scenes and demonstration frames with masks into questions and answers, all four categories."""
    from pokevla.data.sources import libero_vlm
    from pokevla.errors import UsageError

    if len(sources) < 2:
        raise UsageError("convert libero-vlm needs at least one source and OUT.", "Add the missing path.")
    settings = libero_vlm.LiberoVLMSettings(
        sources=sources[:-1],
        out=sources[-1],
        per_image=per_image,
        frame_stride=frame_stride,
        category_weights=_weights(weight or []),
        seed=seed,
        shard_samples=shard_samples,
        jpeg_quality=jpeg_quality,
        overwrite=overwrite,
    )
    with progress("pictures") as on_picture:
        libero_vlm.convert_libero_vlm(settings, on_picture)
    print_made(sources[-1])


def _weights(texts: list[str]) -> dict[str, float]:
    """Category weights with `name=number` put over 1 each. UsageError for what is not of that form."""
    from pokevla.data.records import CATEGORIES
    from pokevla.errors import UsageError

    weights: dict[str, float] = dict.fromkeys(CATEGORIES, 1.0)
    for text in texts:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise UsageError(f"--weight {text}: {number!r} is no number.", "Write --weight grounding=2.") from error
        if name not in weights or value < 0:
            raise UsageError(f"--weight {text} names no category.", f"Categories are {', '.join(weights)}.")
        weights[name] = value
    return weights


def print_made(out: Path) -> None:
    """One line about a dataset just made."""
    from pokevla.recipe.checking.datasets import read_info

    info = read_info(out)
    episodes = f"{info['num_episodes']} episodes, " if info["num_episodes"] else ""
    typer.echo(
        f"{out}: {episodes}{info['num_samples']} samples, {len(info['shards'])} shards, {', '.join(info['fields'])}"
    )
