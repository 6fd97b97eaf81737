"""`pokevla recipe`: inspect recipes without running anything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import typer

from pokevla.errors import RecipeError, UsageError
from pokevla.packaged_recipes import FOLDER, PREFIX, complete_recipe
from pokevla.recipe.document import Document, Template, read_document
from pokevla.recipe.dump import dump_recipe
from pokevla.recipe.load import load_recipe, merge_extends
from pokevla.recipe.messages import nearest
from pokevla.recipe.reference import FieldDoc, field_docs, reference_page
from pokevla.recipe.values import ABSENT, differences, flat_values, plain_values

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="List, show and compare recipes: ls, show, explain, diff."
)
_SEARCHED = "Directory to search; default: the recipes of this package, and those in `recipes`."
_ROOT = typer.Option(None, "--root", help=_SEARCHED)
_RECIPE = typer.Argument(..., help="Recipe: a file, or a name of `recipe ls`.", autocompletion=complete_recipe)


@app.command()
def ls(root: Path = typer.Argument(None, help=_SEARCHED)) -> None:
    """List recipes: name or file, kind, name of the run, and the first comment line, with the command that runs it.

    The recipes of this package are known by name from any folder; a file of that path is preferred.
    """
    rows = []
    for path in _recipe_files(root):
        values = merge_extends(path, os.environ).values
        # A file without a name is a base for others.
        kind = str(values["kind"]) if "name" in values and "kind" in values else "base"
        packaged = path.is_relative_to(FOLDER)
        shown = path.relative_to(FOLDER).with_suffix("").as_posix() if packaged else str(path)
        rows.append((shown, kind, _text(values.get("name", "")).strip('"'), _first_comment(path)))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        typer.echo("  ".join([*cells, row[3]]).rstrip())


def _recipe_files(root: Path | None) -> list[Path]:
    if root is None:
        own = Path(PREFIX) if Path(PREFIX).resolve() != FOLDER.resolve() else None
        return [*sorted(FOLDER.rglob("*.yaml")), *(sorted(own.rglob("*.yaml")) if own is not None else [])]
    files = sorted(root.rglob("*.yaml"))
    if not files:
        raise UsageError(f"{root} contains no recipe.", "Name another directory.")
    return files


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").splitlines()[:1]
    return first[0].lstrip("# ") if first and first[0].startswith("#") else ""


@app.command()
def show(
    recipe: Path = _RECIPE,
    overrides: list[str] = typer.Argument(None, help="Overrides such as optim.lr=3e-4."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON with origins."),
) -> None:
    """Print the resolved recipe: every value and its origin."""
    loaded = load_recipe(recipe, overrides or [])
    if as_json:
        typer.echo(json.dumps({"recipe": plain_values(loaded.recipe), "origins": loaded.origins}, indent=2))
    else:
        typer.echo(dump_recipe(loaded), nl=False)


@app.command()
def explain(field: str = typer.Argument(..., help="Field, such as optim.lr or lr."), root: Path = _ROOT) -> None:
    """Print the meaning, type and default of a field, and the recipes that set it."""
    docs = _find(field)
    for doc in docs:
        typer.echo(f"{doc.name}  ({doc.type}; default: {doc.default}; in {', '.join(doc.kinds)})")
        typer.echo(f"  {doc.text}")
    for name in dict.fromkeys(doc.name for doc in docs):
        for path in _recipe_files(root):
            for origin, value in _settings(read_document(path), name.split(".")):
                typer.echo(f"  set in {origin}: {value}")


def _find(field: str) -> list[FieldDoc]:
    docs = field_docs()
    exact = [doc for doc in docs if doc.name == field]
    last = [doc for doc in docs if doc.name.rsplit(".", 1)[-1] == field]
    if exact or last:
        return exact or last
    names = {doc.name for doc in docs}
    guess = nearest(field, names) or nearest(field.rsplit(".", 1)[-1], {name.rsplit(".", 1)[-1] for name in names})
    raise UsageError(
        f"no recipe has a field {field}.", f"Did you mean {guess}?" if guess else "See docs/recipe_reference.md."
    )


def _settings(document: Document, names: list[str]) -> list[tuple[str, str]]:
    """(origin, value) of a field in one file, searching every item of the lists on its path."""
    settings: list[tuple[str, str]] = []

    def walk(value: Any, rest: list[str], path: tuple[str | int, ...]) -> None:
        if isinstance(value, list):
            for index, item in enumerate(value):
                walk(item, rest, (*path, index))
        elif not rest:
            settings.append((document.location(path), _text(value)))
        elif isinstance(value, dict) and rest[0] in value:
            if len(rest) == 1:
                settings.append((document.location((*path, rest[0])), _text(value[rest[0]])))
            else:
                walk(value[rest[0]], rest[1:], (*path, rest[0]))

    walk(document.values, names, ())
    return settings


def _text(value: Any) -> str:
    if isinstance(value, Template):
        return "".join(part if isinstance(part, str) else f"${{{part[0]}}}" for part in value.parts)
    if isinstance(value, list | dict):
        return f"({len(value)} {'items' if isinstance(value, list) else 'fields'})"
    return json.dumps(value)


@app.command()
def diff(first: Path = _RECIPE, second: Path = _RECIPE) -> None:
    """Print the fields in which two resolved recipes differ, with the origin of each value."""
    one, two = load_recipe(first), load_recipe(second)
    for field, values in differences(flat_values(one.recipe), flat_values(two.recipe)).items():
        typer.echo(field)
        for sign, value, loaded in zip("-+", values, (one, two), strict=True):
            if value is not ABSENT:
                typer.echo(f"  {sign} {json.dumps(value)}  # {loaded.origins.get(field, '')}")


@app.command()
def reference(check: Path = typer.Option(None, "--check", help="Compare with this page instead of printing.")) -> None:
    """Print the reference page of all fields (docs/recipe_reference.md)."""
    page = reference_page()
    if check is None:
        typer.echo(page, nl=False)
    elif not check.is_file() or check.read_text(encoding="utf-8") != page:
        raise RecipeError(f"{check} is out of date.", f"Run: pokevla recipe reference > {check}")
