"""`pokevla eval where2place|refspatial|cvbench MODEL DATA`: published benchmarks of vision-language models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from pokevla.evaluation.vlm_benchmarks.evaluate import Settings

_Model = Annotated[
    Path, typer.Argument(help="Pre-training run, exported or imported PokeVLM, or a VLM of transformers in a folder.")
]
_Data = Annotated[Path, typer.Argument(help="Folder of the benchmark as it is published.")]
_Questions = Annotated[
    int | None, typer.Option(min=1, help="Ask at most N questions of each part, evenly spread. Default: all.")
]
_Wording = Annotated[
    str, typer.Option(help="Who words the request for the format: `official`, or `pokevla` as in our training.")
]
_Tokens = Annotated[int, typer.Option(min=1, help="Cut replies off after N tokens.")]
_Pictures = Annotated[int, typer.Option(min=0, help="Draw N questions of each part.")]
_BatchSize = Annotated[int, typer.Option(min=1, help="Questions per batch.")]
_Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder to write. Default: MODEL-BENCHMARK beside MODEL.")
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


def where2place(
    model: _Model,
    data: _Data,
    part: Annotated[list[str] | None, typer.Option(help="point or bbox. Default: both, if they are there.")] = None,
    questions: _Questions = None,
    wording: _Wording = "official",
    max_new_tokens: _Tokens = 256,
    pictures: _Pictures = 12,
    batch_size: _BatchSize = 16,
    out: _Out = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Where2Place: points and boxes in free space. Official and strict scores, chance, pictures."""
    from pokevla.evaluation.vlm_benchmarks.evaluate import Settings

    settings = Settings(
        "where2place", model, data, part, questions, wording, "relative", max_new_tokens, batch_size, pictures
    )
    _evaluate(settings, out, overwrite, as_json)


def refspatial(
    model: _Model,
    data: _Data,
    part: Annotated[
        list[str] | None, typer.Option(help="location, placement or unseen. Default: those that are there.")
    ] = None,
    family: Annotated[
        str,
        typer.Option(help="How the model is asked and read: relative (ours), robobrain, qwen, molmo or gemini."),
    ] = "relative",
    questions: _Questions = None,
    wording: _Wording = "official",
    max_new_tokens: _Tokens = 256,
    pictures: _Pictures = 12,
    batch_size: _BatchSize = 16,
    out: _Out = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """RefSpatial-Bench: points named by spatial relations. Official and strict scores, chance, pictures."""
    from pokevla.evaluation.vlm_benchmarks.evaluate import Settings

    settings = Settings(
        "refspatial", model, data, part, questions, wording, family, max_new_tokens, batch_size, pictures
    )
    _evaluate(settings, out, overwrite, as_json)


def cvbench(
    model: _Model,
    data: _Data,
    questions: _Questions = None,
    wording: _Wording = "official",
    max_new_tokens: _Tokens = 256,
    pictures: _Pictures = 12,
    batch_size: _BatchSize = 16,
    out: _Out = None,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """CV-Bench: questions with options about 2D and 3D. Official and strict scores, chance, letters."""
    from pokevla.evaluation.vlm_benchmarks.evaluate import Settings

    settings = Settings(
        "cvbench", model, data, None, questions, wording, "relative", max_new_tokens, batch_size, pictures
    )
    _evaluate(settings, out, overwrite, as_json)


def _evaluate(settings: Settings, out: Path | None, overwrite: bool, as_json: bool) -> None:
    from pokevla.cli.progress import progress
    from pokevla.cli.run_verbs.eval import console_for
    from pokevla.evaluation.vlm_benchmarks.evaluate import evaluate_vlm

    model = settings.model.resolve()
    folder = out or model.with_name(f"{model.name}-{settings.benchmark}")
    with progress("questions answered") as on_progress:
        summary = evaluate_vlm(settings, folder, overwrite=overwrite, on_progress=on_progress)
    if as_json:
        typer.echo(json.dumps(summary))
        return
    console = console_for(stderr=False)
    console.print(_table(summary))
    for label in summary["labels"]:
        console.print(label, soft_wrap=True, markup=False)
    console.print(f"Written: {folder / 'summary.json'}", soft_wrap=True, markup=False)


def _table(summary: Any) -> Table:
    from rich.table import Table

    from pokevla.evaluation.vlm_benchmarks.paper_table import COLUMNS, PAPER

    table = Table(
        title=f"{summary['benchmark']}: {summary['model']} ({summary['model_kind']})",
        caption="In brackets: 95 % bootstrap intervals over images.",
        title_justify="left",
    )
    parts = summary["parts"]
    table.add_column("")
    for name in parts:
        table.add_column(name, justify="right")
    for row in ("official", "strict"):
        table.add_row(row, *(_score(part[row]) for part in parts.values()))
    for row in ("chance", "best_constant"):
        cells = ("-" if part[row] is None else f"{part[row]:.3f}" for part in parts.values())
        table.add_row(row.replace("_", " ") + (" answer" if row == "best_constant" else ""), *cells)
    table.add_row("questions", *(str(part["questions"]) for part in parts.values()))
    table.add_row("not read", *(f"{100 * part['failure_rate']:.1f} %" for part in parts.values()))
    table.add_row("distinct answers", *(f"{p['distinct_answers']} of {p['readable']}" for p in parts.values()))
    for name, scores in PAPER.items():
        table.add_row(name, *(f"{scores[COLUMNS.index(part['column'])]:.3f}" for part in parts.values()))
    return table


def _score(score: Any) -> str:
    return "-" if score is None else f"{score['score']:.3f} ({score['low']:.3f} to {score['high']:.3f})"
