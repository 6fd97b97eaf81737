"""`pokevla data`: make datasets, look at them, check them."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pokevla.cli.data_verbs.masks import masks
from pokevla.cli.data_verbs.simulation import demos, scenes
from pokevla.cli.progress import progress

app = typer.Typer(no_args_is_help=True, help="Make and look at datasets.", rich_markup_mode=None)
convert = typer.Typer(no_args_is_help=True, help="Turn a raw source into a dataset directory.", rich_markup_mode=None)
app.add_typer(convert, name="convert")
app.command("demos")(demos)
app.command("scenes")(scenes)
app.command("masks")(masks)


class Noops(StrEnum):
    """What happens to frames without motion."""

    AUTO = "auto"
    DROP = "drop"
    KEEP = "keep"


_Out = Annotated[Path, typer.Argument(help="Dataset directory to make.")]
_Dataset = Annotated[Path, typer.Argument(help="Dataset directory.")]
_ShardSamples = Annotated[int, typer.Option(min=1, help="Samples per shard.")]
_Quality = Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists, once the new one is whole.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@convert.command("libero")
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
    _print_made(out)


@convert.command("libero-vlm")
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
    _print_made(sources[-1])


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


@app.command()
def show(
    dataset: _Dataset,
    sample: Annotated[str, typer.Argument(help="Key or number of the first sample.")] = "0",
    image: Annotated[Path | None, typer.Option(help="Write a contact sheet with masks to this PNG.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Samples on the contact sheet, evenly spread from the first.")] = 8,
    as_json: _Json = False,
) -> None:
    """Print one sample's fields; with --image also draw samples and their masks."""
    from pokevla.data.dataset import open_dataset
    from pokevla.data.inspection import contact_sheet, describe_sample, find_row
    from pokevla.evaluation.files import whole_file

    opened = open_dataset(dataset)
    row = find_row(opened, sample)
    fields = describe_sample(opened, row)
    if as_json:
        typer.echo(json.dumps(fields, indent=1))
    else:
        _print_fields(fields)
    if image is not None:
        left = opened.samples.num_rows - row
        chosen = [row + left * i // count for i in range(min(count, left))]
        sheet = contact_sheet(opened, chosen)
        with whole_file(image) as temporary:
            sheet.save(temporary)
        typer.echo(f"wrote {image}")


@app.command()
def stats(dataset: _Dataset, as_json: _Json = False) -> None:
    """Print counts, sizes and normalisation statistics."""
    from pokevla.data.dataset import open_dataset
    from pokevla.data.inspection import summarise

    summary = summarise(open_dataset(dataset))
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    else:
        _print_fields(summary)


@app.command()
def verify(dataset: _Dataset) -> None:
    """Check every checksum of a dataset."""
    from pokevla.data.inspection import verify_dataset

    with progress("shards") as on_shard:
        samples = verify_dataset(dataset, on_shard)
    typer.echo(f"{dataset}: all {samples} samples are whole.")


def _print_made(out: Path) -> None:
    """One line about a dataset just made."""
    from pokevla.data.dataset import read_info

    info = read_info(out)
    episodes = f"{info['num_episodes']} episodes, " if info["num_episodes"] else ""
    typer.echo(
        f"{out}: {episodes}{info['num_samples']} samples, {len(info['shards'])} shards, {', '.join(info['fields'])}"
    )


def _print_fields(fields: dict[str, Any], indent: str = "") -> None:
    """Names and values, one a line; nested ones below their name."""
    for name, value in fields.items():
        if isinstance(value, dict):
            typer.echo(f"{indent}{name}:")
            _print_fields(value, indent + "  ")
        else:
            text = ", ".join(_short(v) for v in value) if isinstance(value, list) else _short(value)
            typer.echo(f"{indent}{name}: {text}")


def _short(value: Any) -> str:
    """A number with four digits, anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
