"""`pokevla eval tables FOLDER...`: our results beside the tables of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pokevla.errors import UsageError


def tables(
    folders: Annotated[list[Path], typer.Argument(help="Evaluation folders, or FOLDER:POLICY for one policy.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for tables.md, tables.csv and tables.html.")
    ] = None,
    table: Annotated[
        list[str] | None, typer.Option(help="IV, V, VI or VII. Default: those the trials belong to.")
    ] = None,
    counterpart: Annotated[
        list[str] | None, typer.Option("--as", help="POLICY=ROW: the row of the paper that a policy reproduces.")
    ] = None,
) -> None:
    """Write results beside the tables IV to VII of the paper, and what differs. Without --out, print Markdown."""
    from pokevla.evaluation.comparing.folders import read_policies
    from pokevla.evaluation.paper_tables.rendering import SIGNATURES, as_csv, as_html, as_markdown
    from pokevla.evaluation.paper_tables.results import result_tables
    from pokevla.files.labels import printable
    from pokevla.files.ownership import refuse_other_file
    from pokevla.files.texts import write_text

    evaluated = [one for folder in folders for one in read_policies(folder)]
    results = result_tables(evaluated, table or [], _counterparts(counterpart or []))
    if out is None:
        typer.echo("\n".join(map(printable, as_markdown(results).splitlines())))
        return
    for name, signature in SIGNATURES.items():
        refuse_other_file(out / name, signature, "table")
    out.mkdir(parents=True, exist_ok=True)
    texts = (as_markdown(results), as_csv(results), as_html(results))
    for name, text in zip(SIGNATURES, texts, strict=True):
        write_text(out / name, text)
        typer.echo(f"wrote {out / name}")


def _counterparts(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for text, (policy, separator, row) in zip(given, pairs, strict=True):
        if not (policy and separator and row):
            raise UsageError(f"--as {text}: not POLICY=ROW.", "For example: --as pokevla=pokevla_plus")
    return {policy: row for policy, _, row in pairs}
