"""`pokevla data`: make, inspect and verify datasets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from pokevla.cli.data_verbs.export import app as export
from pokevla.cli.data_verbs.masks import masks
from pokevla.cli.data_verbs.mixing import mix, report
from pokevla.cli.data_verbs.regenerate import regenerate
from pokevla.cli.data_verbs.screening import denylist, duplicates, leakage
from pokevla.cli.data_verbs.simulation import demos, scenes
from pokevla.cli.path_arguments import expand_path_arguments
from pokevla.cli.progress import progress
from pokevla.files.labels import printable
from pokevla.parts import DATA_SOURCES, get_part, import_extensions

EXTENSIONS_VARIABLE = "POKEVLA_EXTENSIONS"
"""Environment variable with modules, separated by commas, that add entries to the tables of `pokevla.parts`."""


class ConverterGroup(typer.core.TyperGroup):
    """One command for each entry of `DATA_SOURCES`; what an extension has added is there too."""

    def list_commands(self, ctx: Any) -> list[str]:
        import_extensions(filter(None, os.environ.get(EXTENSIONS_VARIABLE, "").split(",")))
        return list(DATA_SOURCES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        self.list_commands(ctx)
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(cmd_name)(get_part("data convert", cmd_name, DATA_SOURCES))
        command = typer.main.get_command(single)
        command.name = cmd_name
        return expand_path_arguments(command)


app = typer.Typer(no_args_is_help=True, help="Make and inspect datasets.", rich_markup_mode=None)
convert = typer.Typer(
    cls=ConverterGroup, no_args_is_help=True, help="Convert a raw source to a dataset directory.", rich_markup_mode=None
)
app.add_typer(convert, name="convert")
app.add_typer(export, name="export")


@convert.callback()
def _convert() -> None:
    """Convert a raw source to a dataset directory. POKEVLA_EXTENSIONS names modules that add kinds of source."""


app.command("demos")(demos)
app.command("scenes")(scenes)
app.command("masks")(masks)
app.command("regenerate")(regenerate)
app.command("duplicates")(duplicates)
app.command("denylist")(denylist)
app.command("leakage")(leakage)
app.command("mix")(mix)
app.command("report")(report)


_Dataset = Annotated[Path, typer.Argument(help="Dataset directory.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def show(
    dataset: _Dataset,
    sample: Annotated[str, typer.Argument(help="Key or row number of the first sample.")] = "0",
    image: Annotated[Path | None, typer.Option(help="Write a contact sheet of images with masks to this PNG.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Samples on the contact sheet, evenly spread from the first.")] = 8,
    as_json: _Json = False,
) -> None:
    """Print the fields of one sample; with --image also draw samples and their masks."""
    from pokevla.data.dataset import open_dataset
    from pokevla.data.inspection import SHEET_SIGNATURE, contact_sheet, describe_sample, find_row, save_contact_sheet
    from pokevla.files.ownership import refuse_other_file

    if image is not None:
        refuse_other_file(image, SHEET_SIGNATURE, "contact sheet")
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
        save_contact_sheet(contact_sheet(opened, chosen), image)
        typer.echo(f"wrote {image}")


@app.command()
def stats(
    dataset: _Dataset,
    as_json: _Json = False,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write the data card to this page: counts, histograms, duplicates, samples, what looks wrong."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="With --html: samples whose pictures are looked at.")] = 512,
) -> None:
    """Print counts, sizes and normalisation statistics, or write them as a page. Fails, after that, if a number is not
    finite or absurd, or a sample that it looks at is damaged."""
    from pokevla.data.dataset import open_dataset
    from pokevla.data.inspection import refuse_alarms, summarise

    if html is not None:
        _card(dataset, html, rows, as_json)
        return
    opened = open_dataset(dataset)
    summary = summarise(opened)
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    else:
        _print_fields(summary)
    refuse_alarms(opened)


def _card(dataset: Path, html: Path, rows: int, as_json: bool) -> None:
    from monitoring.data_card.page import refuse_card_output, write_card
    from pokevla.data.card.figures import dataset_figures, refuse_what_is_wrong, without_pictures

    refuse_card_output(html)
    figures = dataset_figures(dataset, progress, rows)
    write_card(figures, html)
    typer.echo(json.dumps(without_pictures(figures), indent=1) if as_json else f"wrote {html}")
    refuse_what_is_wrong(dataset, figures)


@app.command()
def verify(dataset: _Dataset) -> None:
    """Check every checksum of a dataset, and that its numbers are finite and not absurd."""
    from pokevla.data.inspection import verify_dataset

    with progress("shards") as on_shard:
        samples = verify_dataset(dataset, on_shard)
    typer.echo(f"{dataset}: all {samples} samples are intact.")


@app.command()
def index(datasets: Annotated[list[Path], typer.Argument(help="Dataset directories.")]) -> None:
    """Write the mapped tables of datasets that were converted before there were any."""
    from pokevla.data.dataset import index_dataset

    for dataset in datasets:
        has_written = index_dataset(dataset)
        typer.echo(f"{dataset}: its mapped tables are {'written' if has_written else 'there'}.")


def _print_fields(fields: dict[str, Any], indent: str = "") -> None:
    """Print names and values, one per line; nested ones below their name."""
    for name, value in fields.items():
        if isinstance(value, dict):
            typer.echo(printable(f"{indent}{name}:"))
            _print_fields(value, indent + "  ")
        else:
            text = ", ".join(_short(v) for v in value) if isinstance(value, list) else _short(value)
            typer.echo(printable(f"{indent}{name}: {text}"))


def _short(value: Any) -> str:
    """Floats with four digits, anything else unchanged."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
