"""`pokevla eval tables FOLDER...`: our results beside the tables of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pokevla.errors import UsageError


def tables(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Evaluation folders, or FOLDER:POLICY for one policy; or folders of VLM benchmarks."),
    ],
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
    """Write results beside the tables IV to VII of the paper, and what differs. Without --out, print Markdown.

    Folders of VLM benchmarks go into Table III (table_iii.md).
    """
    from pokevla.evaluation.comparing.folders import read_policies
    from pokevla.evaluation.paper_tables.rendering import SIGNATURES, as_csv, as_html, as_markdown
    from pokevla.evaluation.paper_tables.results import result_tables
    from pokevla.files.labels import printable
    from pokevla.files.ownership import refuse_other_file
    from pokevla.files.texts import write_text

    if benchmarks := _benchmarks(folders):
        if table or counterpart:
            raise UsageError("--table and --as are about trials, these are VLM benchmarks.", "Leave them out.")
        _table_iii(benchmarks, out)
        return
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


def _benchmarks(folders: list[Path]) -> list[dict[str, Any]]:
    """Summaries of VLM benchmarks; none if the folders are other evaluations. UsageError for a mixture."""
    from pokevla.evaluation.vlm_benchmarks.results import FOLDER

    summaries = {folder: FOLDER.summary(folder) for folder in folders}
    found = [summary for summary in summaries.values() if summary is not None]
    if found and len(found) < len(summaries):
        other = next(folder for folder, summary in summaries.items() if summary is None)
        raise UsageError(f"{other} is not a VLM benchmark, other folders are.", "Give them to two commands.")
    return found


def _table_iii(summaries: list[dict[str, Any]], out: Path | None) -> None:
    from pokevla.evaluation.vlm_benchmarks.paper_table import SIGNATURE, as_markdown
    from pokevla.files.ownership import refuse_other_file
    from pokevla.files.texts import write_text

    text = as_markdown(summaries)
    if out is None:
        typer.echo(text)
        return
    refuse_other_file(out / "table_iii.md", SIGNATURE.encode(), "table")
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "table_iii.md", text)
    typer.echo(f"wrote {out / 'table_iii.md'}")


def _counterparts(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for text, (policy, separator, row) in zip(given, pairs, strict=True):
        if not (policy and separator and row):
            raise UsageError(f"--as {text}: not POLICY=ROW.", "For example: --as pokevla=pokevla_plus")
    return {policy: row for policy, _, row in pairs}
