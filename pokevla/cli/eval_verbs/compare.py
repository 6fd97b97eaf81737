"""`pokevla eval compare A B`: which of two policies is better."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pokevla.evaluation.comparing.compare import Comparison


def compare(
    a: Annotated[Path, typer.Argument(help="Evaluation folder, or FOLDER:POLICY where it has several policies.")],
    b: Annotated[Path, typer.Argument(help="The other one. It may be in the same folder.")],
    unpaired: Annotated[
        bool, typer.Option("--unpaired", help="Compare as different trials, also with different settings.")
    ] = False,
    alpha: Annotated[float, typer.Option(help="Level of the tests; intervals have 1 - ALPHA.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two policies on the trials that both have done: success rates, difference, exact test, verdict."""
    from pokevla.cli.tables import print_whole
    from pokevla.evaluation.comparing.compare import compare as compare_policies
    from pokevla.evaluation.comparing.folders import read_policy
    from pokevla.evaluation.comparing.sentences import left_out, verdict
    from pokevla.files.labels import printable

    comparison = compare_policies(read_policy(a), read_policy(b), paired=not unpaired, alpha=alpha)
    if as_json:
        typer.echo(json.dumps(_content(comparison, verdict(comparison)), indent=2))
        return
    print_whole(_table(comparison))
    for line in (left_out(comparison), *comparison.notes, verdict(comparison)):
        if line is not None:
            typer.echo(printable(line))


def _content(comparison: Comparison, verdict: str) -> dict[str, Any]:
    content = dataclasses.asdict(comparison)
    for row, plain in zip(comparison.rows, content["rows"], strict=True):
        plain["a"]["rate"], plain["b"]["rate"] = row.a.rate, row.b.rate
    return {**content, "verdict": verdict}


def _table(comparison: Comparison) -> Table:
    from rich.table import Table

    from pokevla.evaluation.comparing.sentences import p_text, points, span

    level = f"{1 - comparison.alpha:.0%}"
    how = "same trials, exact McNemar test" if comparison.paired else "different trials, Barnard's test"
    table = Table(title=f"{comparison.a} against {comparison.b}: {how}", title_justify="left")
    table.add_column("trials of")
    columns = [comparison.a, f"{level} interval", comparison.b, f"{level} interval", "difference", f"{level} interval"]
    if comparison.paired:
        columns += [f"only {comparison.a}", f"only {comparison.b}"]
    families = len(comparison.rows) > 1
    for column in (*columns, "p", *(["p (Holm)"] if families else [])):
        table.add_column(column, justify="right")
    for row in comparison.rows:
        cells = [row.name]
        for side in (row.a, row.b):
            rate = "" if side.rate is None else f" = {side.rate:.1%}"
            cells += [f"{side.successes}/{side.trials}{rate}", f"{side.low:.1%} to {side.high:.1%}"]
        cells += [points(row.difference), span(row.low, row.high)]
        if comparison.paired:
            cells += [str(row.only_a), str(row.only_b)]
        corrected = ["" if row.family == "total" else p_text(row.p_holm)] if families else []
        table.add_row(*cells, p_text(row.p), *corrected)
    return table
