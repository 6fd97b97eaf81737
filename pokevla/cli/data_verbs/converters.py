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
    """What to do with frames without motion."""

    AUTO = "auto"
    DROP = "drop"
    KEEP = "keep"


class Wording(StrEnum):
    """Where instructions come from."""

    TASK = "task"
    FILE = "file"


class AlignmentChoice(StrEnum):
    """When the observation of a row was made, relative to its action."""

    BEFORE = "before"
    AFTER = "after"


class AspectRule(StrEnum):
    """How an image that is not square becomes square."""

    STRETCH = "stretch"
    PAD = "pad"
    CROP = "crop"


_Out = Annotated[Path, typer.Argument(help="Dataset directory to write.")]
_ShardSamples = Annotated[int, typer.Option(min=1, help="Samples per shard.")]
_Quality = Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")]
_Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace OUT if it exists, once the new dataset is complete.")
]
_Aspect = Annotated[
    AspectRule,
    typer.Option(
        help="Images that are not square, or not all of one size: stretch them (as model and policy do), pad with "
        "black, or crop the centre. Masks likewise."
    ),
]
_MaxSkipped = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, help="Share of episodes that may be left out because they are damaged or hold bad "
                 "numbers; above it the conversion fails."),
]  # fmt: skip
AlignmentOption = Annotated[
    AlignmentChoice | None,
    typer.Option(help="Whether observations were made before or after the action of their row, for files whose joints "
                 "and states do not tell."),
]  # fmt: skip
_ReadTimeout = Annotated[
    float, typer.Option(min=0.1, help="Seconds that one read of a source may take before it counts as damaged.")
]


def convert_libero(
    source: Annotated[
        Path, typer.Argument(help="Demonstration HDF5 file, or a directory of them (published or ours).")
    ],
    out: _Out,
    shard_samples: _ShardSamples = 256,
    jpeg_quality: _Quality = 95,
    val_fraction: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of episodes for split `val` if the file defines no split.")
    ] = 0.0,
    noops: Annotated[
        Noops, typer.Option(help="Frames without motion: auto drops them from published files and keeps them in ours.")
    ] = Noops.AUTO,
    instructions: Annotated[
        Wording,
        typer.Option(
            help="Wording of the instructions: of the task's name, as published policies are trained and "
            "evaluated, or of the file (the BDDL's in published files)."
        ),
    ] = Wording.TASK,
    alignment: AlignmentOption = None,
    aspect: _Aspect = AspectRule.STRETCH,
    max_skipped: _MaxSkipped = 0.0,
    read_timeout: _ReadTimeout = 60.0,
    overwrite: _Overwrite = False,
) -> None:
    """Convert LIBERO demonstrations to a robot dataset: no-op filter, shards, index, tables, statistics."""
    from pokevla.data.sources import libero

    settings = libero.LiberoSettings(
        source,
        out,
        shard_samples,
        jpeg_quality,
        val_fraction,
        overwrite,
        noops.value,
        instructions=instructions.value,
        alignment=alignment.value if alignment is not None else None,
        aspect=aspect.value,
        max_skipped=max_skipped,
        read_timeout_s=read_timeout,
    )
    with progress("episodes") as on_episode:
        libero.convert_libero(settings, on_episode, print_note)
    print_made(out)


def convert_libero_vlm(
    sources: Annotated[list[Path], typer.Argument(metavar="SRC... OUT", help="Scenes or demonstrations, then OUT.")],
    per_image: Annotated[int, typer.Option(min=1, help="Questions per image.")] = 4,
    frame_stride: Annotated[int, typer.Option(min=1, help="Use every Nth rendered frame of an episode.")] = 8,
    weight: Annotated[
        list[str] | None, typer.Option(help="Relative weight of a category, such as grounding=2. May be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of templates and objects.")] = 0,
    shard_samples: _ShardSamples = 256,
    jpeg_quality: _Quality = 95,
    alignment: AlignmentOption = None,
    aspect: _Aspect = AspectRule.STRETCH,
    max_skipped: _MaxSkipped = 0.0,
    read_timeout: _ReadTimeout = 60.0,
    overwrite: _Overwrite = False,
) -> None:
    """Convert scenes and demonstration frames with masks to questions and answers of four categories."""
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
        alignment=alignment.value if alignment is not None else None,
        aspect=aspect.value,
        max_skipped=max_skipped,
        read_timeout_s=read_timeout,
    )
    with progress("images") as on_picture:
        libero_vlm.convert_libero_vlm(settings, on_picture, print_note)
    print_made(sources[-1])


def _weights(texts: list[str]) -> dict[str, float]:
    """Category weights: 1 each, overridden by `name=number`. UsageError for any other form."""
    from pokevla.data.records import CATEGORIES
    from pokevla.errors import UsageError

    weights: dict[str, float] = dict.fromkeys(CATEGORIES, 1.0)
    for text in texts:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise UsageError(f"--weight {text}: {number!r} is not a number.", "Write --weight grounding=2.") from error
        if name not in weights or value < 0:
            raise UsageError(f"--weight {text} does not name a category.", f"Categories are {', '.join(weights)}.")
        weights[name] = value
    return weights


def print_note(text: str) -> None:
    """Print what a conversion passed over or left out, on stderr."""
    typer.echo(f"note: {text}", err=True)


def print_made(out: Path) -> None:
    """Print one line about a new dataset."""
    from pokevla.recipe.checking.datasets import read_info

    info = read_info(out)
    episodes = f"{info['num_episodes']} episodes, " if info["num_episodes"] else ""
    typer.echo(
        f"{out}: {episodes}{info['num_samples']} samples, {len(info['shards'])} shards, {', '.join(info['fields'])}"
    )
