"""`pokevla model summary|import|export`: what a model consists of and costs, published weights in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pokevla.errors import UsageError
from pokevla.packaged_recipes import complete_recipe
from pokevla.parts import WEIGHT_FORMATS

app = typer.Typer(
    no_args_is_help=True,
    help="Work with the model itself: count it, import and export published weights.",
    rich_markup_mode=None,
)

_Kind = Annotated[str, typer.Argument(metavar="KIND", help=f"Kind of weights: {', '.join(WEIGHT_FORMATS)}.")]
_Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; it must not exist.")]


@app.command()
def summary(
    recipe: Annotated[
        Path | None, typer.Argument(help="A pretrain or posttrain recipe.", autocompletion=complete_recipe)
    ] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as batch.micro=4.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Size (tiny, mini, pocket); without a recipe, post-training with LoRA.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print parts, parameters, operations, activations and memory per ZeRO stage, without building the model."""
    from pokevla.cli.model_verbs.summary import summary_lines
    from pokevla.recipe.load import load_recipe
    from pokevla.recipe.planning.summary import default_recipe, summarise

    if recipe is not None:
        changes = [*(overrides or []), *([f"model.preset={preset}"] if preset else [])]
        made = summarise(load_recipe(recipe, changes).recipe)
    elif preset is not None:
        made = summarise(default_recipe(preset))
    else:
        raise UsageError("it is not said which model.", "Name a recipe, or a size: --preset pocket.")
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
        return
    for line in summary_lines(made):
        typer.echo(line)


@app.command("import")
def import_(
    kind: _Kind,
    src: Annotated[
        str, typer.Argument(metavar="SRC", help="File or folder of published weights, or an id at the hub.")
    ],
    out: _Out,
    revision: Annotated[
        str | None, typer.Option(metavar="COMMIT", help="Commit of a hub id; default: that of `pokevla models ls`.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Size to expect; default: what the config.json of the source says.")
    ] = None,
    companions: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME=PATH", help="Another file or folder that this kind takes; repeatable."),
    ] = None,
) -> None:
    """Turn published weights into a folder of ours: every tensor checked, none rounded, no code in a file executed."""
    from pokevla.cli.progress import progress
    from pokevla.weights.conversion.importing import import_weights, open_source, weight_format
    from pokevla.weights.conversion.weight_format import ImportRequest
    from pokevla.weights.published.hub import fetch_from_hub, is_hub_id, pinned_revision

    format_, named = weight_format(kind), _named_paths(companions or [])
    place = Path(src).expanduser()
    if is_hub_id(src):
        revision = pinned_revision(src, revision)
        place = fetch_from_hub(src, revision, format_.hub_patterns)
    elif revision is not None:
        raise UsageError(f"{src} is a path, --revision is for ids at the hub.")
    request = ImportRequest(
        kind,
        open_source(kind, place),
        preset,
        named,
        src if revision else place.name,
        revision,
    )
    with progress(f"import {kind}, bytes") as listen:
        report = import_weights(request, out, lambda done, total: listen(done, total))
    counts = f"{report.num_tensors:,} tensors, {report.num_parameters:,} numbers"
    typer.echo(f"{out}: {counts} from {report.title} ({report.layout}).")
    for names, verb in ((report.ignored, "left out"), (report.new, "new")):
        for reason in dict.fromkeys(names.values()):
            some = [name for name, given in names.items() if given == reason]
            typer.echo(f"  {verb}: {some[0]}{f' and {len(some) - 1} more' if len(some) > 1 else ''} ({reason})")


@app.command("export")
def export(
    kind: _Kind,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run, or an exported or imported folder.")],
    out: _Out,
    layout: Annotated[
        list[str] | None, typer.Option(help="Layout to write; repeatable. Default: all, each in a folder of OUT.")
    ] = None,
) -> None:
    """Write a model of ours as others read it. An imported one comes back bit for bit."""
    from pokevla.cli.progress import progress
    from pokevla.weights.conversion.exporting import export_weights

    with progress(f"export {kind}, bytes") as listen:
        written = export_weights(kind, run, out, layout or [], lambda done, total: listen(done, total))
    for name, folder in written.items():
        typer.echo(f"{folder}: {kind}, layout {name}")


def _named_paths(options: list[str]) -> dict[str, Path]:
    pairs = [option.partition("=") for option in options]
    if wrong := [option for option, (name, _, path) in zip(options, pairs, strict=True) if not name or not path]:
        raise UsageError(f"--with {wrong[0]} is not NAME=PATH.")
    return {name: Path(path).expanduser() for name, _, path in pairs}
