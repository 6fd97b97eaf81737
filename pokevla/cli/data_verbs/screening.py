"""`pokevla data duplicates`, `denylist` and `leakage`: samples that should not be trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pokevla.cli.progress import progress

_Datasets = Annotated[list[Path], typer.Argument(help="Dataset directories of questions.")]
_Threads = Annotated[int, typer.Option(min=1, help="Threads that decode pictures. The result does not depend on it.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier result.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


def duplicates(
    datasets: _Datasets,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for left_out.parquet and report.json. Default: none.")
    ] = None,
    threads: _Threads = 1,
    overwrite: _Overwrite = False,
    as_json: _Json = False,
) -> None:
    """Find samples that repeat or contradict others, in all of the datasets together. The first one of equal samples is
    kept, in the order of the datasets given."""
    from pokevla.data.screening.duplicate_report import duplicate_report, write_duplicates
    from pokevla.data.screening.duplicates import find_duplicates
    from pokevla.data.screening.left_out import sentences
    from pokevla.data.screening.scanning import open_questions

    opened = open_questions(datasets)
    _refuse_result(out, datasets, overwrite)
    with _shards() as on_shard:
        found = find_duplicates(opened, threads, on_shard)
    report = duplicate_report(found) if out is None else write_duplicates(found, out, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    for line in sentences(report["left_out"]):
        typer.echo(line)
    total = sum(report["left_out"].values())
    typer.echo(
        f"{total} of {report['samples']} samples with {report['pictures']} different pictures are to be left out"
    )
    if out is not None:
        typer.echo(f"wrote {out}")


def denylist(
    out: Annotated[Path, typer.Argument(help="Deny list to write, a parquet file.")],
    benchmarks: Annotated[
        list[Path],
        typer.Argument(
            metavar="BENCHMARK_DATA...",
            help="Folders of Where2Place, RefSpatial-Bench, CV-Bench or RoboSpatial-Home as published, or of other "
            "pictures.",
        ),
    ],
    overwrite: _Overwrite = False,
) -> None:
    """Write a deny list: names, checksums and hashes of the pictures of benchmarks, and the words of questions."""
    from itertools import chain

    from pokevla.data.screening.deny_list import write_deny_list
    from pokevla.errors import DataError
    from pokevla.evaluation.vlm_benchmarks.denying import deny_items
    from pokevla.files.ownership import refuse_overlap

    refuse_overlap(out, benchmarks)
    items = chain.from_iterable(map(deny_items, benchmarks))
    with progress("questions") as on_item:
        counts = write_deny_list(out, _counted(items, on_item), overwrite=overwrite)
    if not counts:
        raise DataError("The benchmarks hold no questions.", "Check the paths.")
    for name, its in counts.items():
        untold = f", {its['untold']} of them too short or too common to be compared" if its["untold"] else ""
        typer.echo(f"{name}: {its['pictures']} pictures, {its['questions']} questions{untold}")
    typer.echo(f"wrote {out}")


def leakage(
    datasets: _Datasets,
    deny: Annotated[Path, typer.Option("--deny", help="Deny list, written by pokevla data denylist.")],
    waivers: Annotated[
        Path | None, typer.Option(help="JSON list of hits that are accepted, each with its reason (docs/data.md).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for left_out.parquet and report.json. Default: none.")
    ] = None,
    threads: _Threads = 1,
    overwrite: _Overwrite = False,
) -> None:
    """Fail if a sample holds a picture or a question of a benchmark, unless a waiver accepts it. Names each hit and its
    reason."""
    from pokevla.data.screening.deny_list import DenyList
    from pokevla.data.screening.leak_report import LeakCounts, count_leaks, write_leaks
    from pokevla.data.screening.leakage import find_leaks
    from pokevla.data.screening.scanning import open_questions
    from pokevla.data.screening.waivers import read_waivers
    from pokevla.errors import DataError

    accepted = read_waivers(waivers) if waivers is not None else []
    listed = DenyList.read(deny)
    opened = open_questions(datasets)
    _refuse_result(out, datasets, overwrite)
    with _shards() as on_shard:
        hits = find_leaks(opened, listed, threads, on_shard)
        counts: LeakCounts = (
            count_leaks(hits, accepted)
            if out is None
            else write_leaks(hits, opened, listed, accepted, out, overwrite=overwrite)
        )
    _print_hits(counts, accepted)
    if out is not None:
        typer.echo(f"wrote {out}")
    if counts.leaks:
        reasons = ", ".join(f"{count} {code}" for code, count in sorted(counts.hits.items()))
        raise DataError(
            f"{counts.leaks} hits in benchmarks that are not waived: {reasons}.",
            "Leave these samples out, or accept a hit with its reason in a file for --waivers.",
        )
    typer.echo(f"{sum(len(dataset.rows) for dataset in opened)} samples: none is of {', '.join(listed.benchmarks)}")


def _print_hits(counts: Any, waivers: list[Any]) -> None:
    from pokevla.files.labels import printable

    for code, shown in sorted(counts.examples.items()):
        for hit in shown:
            typer.echo(printable(f"{code}: {hit['key']} of {hit['dataset']}: {hit['because']}"), err=True)
        if counts.hits[code] > len(shown):
            typer.echo(f"{code}: {counts.hits[code] - len(shown)} more; --out lists them all", err=True)
    for waiver in waivers:
        used = counts.waived[waiver]
        about = f"{waiver.code} of {waiver.benchmark} ({waiver.reason})"
        text = f"waived: {used} {about}" if used else f"note: this waiver covers nothing: {about}"
        typer.echo(printable(text), err=True)


def _refuse_result(out: Path | None, datasets: list[Path], overwrite: bool) -> None:
    """Refuse an output before the work, as it would be refused afterwards."""
    from pokevla.data.screening.left_out import owned_result
    from pokevla.errors import DataError
    from pokevla.files.ownership import refuse_overlap
    from pokevla.files.writing import refuse_second_writer

    if out is None:
        return
    refuse_overlap(out, datasets)
    refuse_second_writer(out)
    if out.exists() and not overwrite:
        raise DataError(f"{out} exists.", "Choose another name, or pass --overwrite.")
    if out.is_dir():
        owned_result(out)


@contextmanager
def _shards() -> Iterator[Callable[[Any], Callable[[int, int], None]]]:
    """Dataset -> a listener for its shards, on one line of progress."""
    with progress("shards") as on_shard:
        yield lambda dataset: on_shard


def _counted(items: Any, on_item: Any) -> Any:
    for number, item in enumerate(items, start=1):
        yield item
        on_item(number)
