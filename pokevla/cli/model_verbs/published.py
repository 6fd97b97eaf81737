"""`pokevla models ls|get`: the published models that recipes need."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pokevla.errors import UsageError
from pokevla.weights.published.downloading import Presence, download, presence
from pokevla.weights.published.models import MODELS, VARIABLE, PublishedModel, published_model

app = typer.Typer(
    no_args_is_help=True, help="The published models that recipes need: list, download.", rich_markup_mode=None
)
_To = Annotated[Path | None, typer.Option("--to", help=f"Directory of the models; default: {VARIABLE}.")]


@app.command()
def ls(to: _To = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the models: licence, size, address, where they go, and whether they are there."""
    root = _root(to) or Path(f"${VARIABLE}")
    if as_json:
        typer.echo(json.dumps([_as_json(model, root) for model in MODELS], indent=2))
        return
    for model in MODELS:
        typer.echo(f"{model.name}: {model.title}")
        typer.echo(f"  licence   {model.licence}")
        typer.echo(f"  size      {_size(model.size_bytes)}")
        typer.echo(f"  address   {model.address()}" + (f" (revision {model.revision[:10]})" if not model.url else ""))
        typer.echo(f"  goes to   {os.path.normpath(root / model.folder)}: {_state(model, root)}")
        typer.echo(f"  for       {model.needed_for}")
        if model.note:
            typer.echo(f"  note      {model.note}")
    typer.echo(f"Download with: pokevla models get NAME... (or --all), to {VARIABLE} or --to DIR.")


@app.command()
def get(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Names of `models ls`.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Download all of them.")] = False,
    to: _To = None,
) -> None:
    """Download models at their pinned revision, check them, and say what to set.

    An interrupted download continues when the command is repeated; files that are there are checked, not replaced.
    """
    root = _root(to)
    if root is None:
        raise UsageError("it is not said where the models go.", f"Set {VARIABLE}, or name a directory with --to.")
    if everything == bool(names):
        raise UsageError("name models, or give --all.", "`pokevla models ls` lists them.")
    chosen = MODELS if everything else [published_model(name) for name in names or []]
    for model in chosen:
        typer.echo(f"{model.name}: licence {model.licence}")
        download(model, root, _announce)
        if model.note:
            typer.echo(f"  note: {model.note}")
    typer.echo(f"Set this for the recipes: export {VARIABLE}={root.absolute()}")


def _announce(address: str, target: Path, found: Presence) -> None:
    texts = {"present": "is there, as published", "unchecked": "is there (nothing to compare it with)"}
    typer.echo(f"  {target} {texts[found]}" if found in texts else f"  {address} -> {target}")


def _root(to: Path | None) -> Path | None:
    given = os.environ.get(VARIABLE)
    return to if to is not None else Path(given) if given else None


def _state(model: PublishedModel, root: Path) -> str:
    """Compares sizes only: checksums of gigabytes take a while, and `get` checks them."""
    found = {presence(model.target(root, file), file) for file in model.files}
    if "differs" in found:
        return "another file is there"
    return "missing" if found == {"missing"} else "incomplete" if "missing" in found else "there"


def _size(size_bytes: int | None) -> str:
    return "not known before the download" if size_bytes is None else f"{size_bytes / 2**20:,.1f} MiB"


def _as_json(model: PublishedModel, root: Path) -> dict[str, object]:
    targets = [str(model.target(root, file)) for file in model.files]
    extra = {"address": model.address(), "targets": targets, "state": _state(model, root)}
    return {**asdict(model), "size_bytes": model.size_bytes, **extra}
