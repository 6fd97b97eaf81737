"""`pokevla data mix`: the training set of a mixture recipe, from converted question sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pokevla.cli.data_verbs.converters import print_note
from pokevla.cli.progress import progress
from pokevla.packaged_recipes import complete_recipe

if TYPE_CHECKING:
    from pokevla.data.mixing.report.lengths import Measure
    from pokevla.data.mixing.summary import MixtureSummary

_Tokenizer = Annotated[
    Path | None,
    typer.Option(help="Folder of a tokenizer: the report gives lengths in its tokens, not in words and characters."),
]


def mix(
    recipe: Annotated[
        Path, typer.Argument(help="A recipe of kind mixture: a file, or a name.", autocompletion=complete_recipe)
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as seed=8 name=second.")] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes; the result does not depend on it. 0: this process.")
    ] = 1,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier mixture, once the new one is complete.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard finished parts that were made of other inputs or another recipe.")
    ] = False,
    tokenizer: _Tokenizer = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print mixture.json.")] = False,
) -> None:
    """Draw a training set from converted question sets, by a recipe: what to leave out, caps, budgets, balance. Writes
    OUTPUT/NAME with a dataset for each category, mixture.json and report.html. A command that was killed goes on after
    its finished parts."""
    from pokevla.data.mixing.mixing import mix as make
    from pokevla.data.mixing.summary import REPORT_NAME
    from pokevla.errors import RecipeError
    from pokevla.recipe.load import load_recipe
    from pokevla.recipe.schema import MixtureRecipe

    loaded = load_recipe(recipe, overrides or []).recipe
    if not isinstance(loaded, MixtureRecipe):
        raise RecipeError(f"{recipe} is of kind {loaded.kind}.", "`pokevla data mix` takes kind mixture.")
    measures = _measures(tokenizer)
    with ExitStack() as bars:

        def add_report(folder: Path) -> None:
            bars.close()  # it shows its own
            _write_report(folder, measures)

        made = make(
            loaded,
            workers=workers,
            overwrite=overwrite,
            restart=restart,
            on_scan=bars.enter_context(progress("samples read")),
            on_draw=bars.enter_context(progress("samples written")),
            on_note=print_note,
            on_written=add_report,
        )
    if as_json:
        typer.echo(json.dumps(made.to_json(), indent=1))
        return
    print_summary(made)
    out = loaded.output / loaded.name
    joined = f", joined into {made.written:,} conversations" if made.written != made.selected else ""
    typer.echo(f"wrote {out}: {made.selected:,} samples{joined}; {out / REPORT_NAME} shows them")


def report(
    mixture: Annotated[Path, typer.Argument(help="Folder of a mixture, with mixture.json.")],
    tokenizer: _Tokenizer = None,
    out: Annotated[Path | None, typer.Option(help="Write this page instead of report.html in MIXTURE.")] = None,
) -> None:
    """Write the report of a mixture again: the twin of the paper's table I, counts at each step, diversity, positions,
    letters, lengths, samples. Reads the mixture only, not its inputs. Fails, after that, if a sample that it looks at
    is damaged."""
    from monitoring.mixture_report.page import refuse_report_output
    from pokevla.data.mixing.summary import REPORT_NAME
    from pokevla.errors import DataError

    page = mixture / REPORT_NAME if out is None else out
    refuse_report_output(page)
    damaged = _write_report(mixture, _measures(tokenizer), page)
    typer.echo(f"wrote {page}")
    if damaged:
        raise DataError(f"{mixture}: {damaged[0]}", "Restore the shard, or make the mixture again: pokevla data mix")


def _measures(tokenizer: Path | None) -> Sequence[Measure]:
    """What lengths are given in. Raises CheckpointError if there is no tokenizer in the folder."""
    from pokevla.data.mixing.report.lengths import WITHOUT_TOKENIZER, tokens_of

    if tokenizer is None:
        return WITHOUT_TOKENIZER
    from pokevla.model.tokenizers.loading import load_tokenizer

    return [tokens_of(load_tokenizer(tokenizer))]


def _write_report(folder: Path, measures: Sequence[Measure], page: Path | None = None) -> list[str]:
    """Write the page; returns a sentence for each sample that should be shown and is damaged."""
    from monitoring.mixture_report.page import write_report
    from pokevla.data.mixing.report.figures import mixture_figures

    summary, figures = mixture_figures(folder, progress, measures)
    write_report(folder, summary, figures, page)
    return figures["damaged"]


def print_summary(summary: MixtureSummary) -> None:
    """Print the twin of the paper's table I, and where the samples ended."""
    from pokevla.data.mixing.summary import STEPS

    rows = [
        [
            row.category if row.source is None else f"  {row.source}",
            f"{row.read:,}",
            f"{row.selected:,}",
            f"{row.budget:,}" if row.budget is not None else "",
            f"{row.paper:,}" if row.paper is not None else "",
        ]
        for row in summary.table_one()
    ]
    total = [sum(getattr(each, name) for each in summary.categories) for name in ("selected", "budget", "paper")]
    steps = summary.step_totals()
    rows.append(["all", f"{steps['read']:,}", *(f"{number:,}" for number in total)])
    _print(["category, source", "read", "taken", "budget", "paper"], rows)
    typer.echo("")
    names = {step: step.replace("_", " ") for step in STEPS}
    categories = [each.category for each in summary.categories]
    _print(
        ["category", "read", *names.values()],
        [[name, *(f"{count:,}" for count in summary.step_totals(name).values())] for name in categories],
    )
    if codes := summary.left_out_codes():
        typer.echo("left out: " + ", ".join(f"{count:,} {code}" for code, count in codes.items()))


def _print(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from rich.table import Table

    from pokevla.cli.tables import print_whole

    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    print_whole(table)
