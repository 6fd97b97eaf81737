"""`pokevla model import|export`: published weights in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pokevla.errors import UsageError
from pokevla.parts import WEIGHT_FORMATS

app = typer.Typer(
    no_args_is_help=True,
    help="Work with the model itself: import and export published weights.",
    rich_markup_mode=None,
)

_Kind = Annotated[str, typer.Argument(metavar="KIND", help=f"Kind of weights: {', '.join(WEIGHT_FORMATS)}.")]
_Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; it must not exist.")]


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

    format_ = weight_format(kind)
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
        _named_paths(companions or []),
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
