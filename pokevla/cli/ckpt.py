"""`pokevla ckpt`: inspect checkpoints and turn them into models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pokevla.cli import ckpt_tables

app = typer.Typer(
    no_args_is_help=True,
    help="Work with checkpoints: inspect, verify, diff, consolidate, merge-lora, export, convert, prune.",
    rich_markup_mode=None,
)

_Run = Annotated[Path, typer.Argument(help="A run directory, or one of its checkpoints.")]
_Source = Annotated[
    Path, typer.Argument(help="A run (its newest checkpoint), a checkpoint, or a directory of weights.")
]
_Out = Annotated[Path, typer.Argument(help="Directory to write; it must not exist.")]
_Step = Annotated[int | None, typer.Option("--step", help="Step of the checkpoint; default: the newest complete one.")]
_MaxFile = Annotated[
    float | None,
    typer.Option("--max-file-gib", min=0.0001, help="Split into files of at most this size, with an index."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def inspect(
    source: _Source,
    step: _Step = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor of one checkpoint.")] = False,
    as_json: _Json = False,
) -> None:
    """List the checkpoints of a run, or show what one of them (--step) or a directory of weights contains."""
    from checkpoints_tools.inspect import inspect_run, inspect_source
    from checkpoints_tools.source import is_checkpoint_folder, open_checkpoint_source, open_source
    from pokevla.runs.directory import holds_recipe

    if holds_recipe(source) and step is None and not tensors:
        content, show = inspect_run(source), ckpt_tables.print_run
    elif step is not None or is_checkpoint_folder(source):
        content = inspect_source(open_checkpoint_source(source, step), with_tensors=tensors)
        show = ckpt_tables.print_content
    else:
        content = inspect_source(open_source(source, _warn), with_tensors=tensors)
        show = ckpt_tables.print_content
    _answer(content, as_json, show)


@app.command()
def verify(run: _Run, step: _Step = None, as_json: _Json = False) -> None:
    """Check every checksum of all checkpoints and list each damaged file. Exit code 3 if there is one."""
    from checkpoints_tools.source import is_checkpoint_folder
    from checkpoints_tools.verify import unfinished, verify_run
    from pokevla.errors import CheckpointError

    results = verify_run(run, step)
    remains = [] if step is not None or is_checkpoint_folder(run) else unfinished(run)
    content = {
        "run": str(run),
        "checkpoints": [result.as_json() for result in results],
        "unfinished": [str(folder) for folder in remains],
    }
    _answer(content, as_json, ckpt_tables.print_verified)
    damaged = [sentence for result in results for sentence in result.damaged]
    if damaged:
        count = sum(not result.is_good for result in results)
        raise CheckpointError(
            f"{count} of {len(results)} checkpoints of {run} are damaged ({len(damaged)} files; first: {damaged[0]})",
            "Resume uses the newest undamaged one.",
        )


@app.command()
def diff(
    first: _Source,
    second: _Source,
    as_json: _Json = False,
) -> None:
    """Compare two checkpoints, of one run or two: recipe, progress, and weights by part."""
    from checkpoints_tools.diff import diff as compare
    from checkpoints_tools.source import open_source

    _answer(compare(open_source(first, _warn), open_source(second, _warn)).as_json(), as_json, ckpt_tables.print_diff)


@app.command()
def consolidate(
    run: _Run,
    out: _Out,
    step: _Step = None,
    trained_only: Annotated[bool, typer.Option("--trained-only", help="Leave out frozen weights.")] = False,
    max_file_gib: _MaxFile = None,
    as_json: _Json = False,
) -> None:
    """Write all weights of a checkpoint, frozen ones included, in fp32 as safetensors, from any ZeRO stage."""
    from checkpoints_tools.consolidate import consolidate as write
    from checkpoints_tools.source import open_checkpoint_source, refuse_output

    refuse_output(run, out)
    source = open_checkpoint_source(run, step, _warn)
    with _progress("consolidate") as listen:
        write(source, out, trained_only=trained_only, max_file_bytes=_bytes(max_file_gib), on_progress=listen)
    _written(out, source.info.step, as_json)


@app.command("merge-lora")
def merge_lora(
    source: _Source, out: _Out, step: _Step = None, max_file_gib: _MaxFile = None, as_json: _Json = False
) -> None:
    """Merge LoRA into the weights it adapts, of a checkpoint or of the output of `consolidate`."""
    from checkpoints_tools.merge_lora import merge_lora as write
    from checkpoints_tools.source import CheckpointSource, open_checkpoint_source, open_source, refuse_output

    refuse_output(source, out)
    opened = open_source(source, _warn) if step is None else open_checkpoint_source(source, step)
    with _progress("merge-lora") as listen:
        write(opened, out, max_file_bytes=_bytes(max_file_gib), on_progress=listen)
    _written(out, opened.info.step if isinstance(opened, CheckpointSource) else None, as_json)


@app.command()
def export(run: _Run, out: _Out, step: _Step = None, as_json: _Json = False) -> None:
    """Write the model of a checkpoint as a self-contained directory: LoRA merged, fp32."""
    from checkpoints_tools.source import open_checkpoint_source, refuse_output

    refuse_output(run, out, is_export=True)
    source = open_checkpoint_source(run, step, _warn)
    from pokevla.weights.export import export_checkpoint  # takes seconds: import only when there is something to export

    with _progress("export") as listen:
        export_checkpoint(source.run_dir, source.recipe, source.folder, source.info, out, listen)
    _written(out, source.info.step, as_json)


@app.command()
def convert(run: _Run, step: _Step = None, as_json: _Json = False) -> None:
    """Convert a checkpoint for another number of ranks. Resume does this by itself, while all ranks wait."""
    from checkpoints_tools.convert import convert as make
    from checkpoints_tools.source import open_checkpoint_source

    source = open_checkpoint_source(run, step, _warn)
    _written(make(source), source.info.step, as_json)


@app.command()
def prune(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    step: Annotated[
        list[int] | None, typer.Option("--step", help="Delete the checkpoint of this step. May be repeated.")
    ] = None,
    keep_last: Annotated[int | None, typer.Option("--keep-last", min=0, help="Keep this many of the newest.")] = None,
    keep_every: Annotated[int | None, typer.Option("--keep-every", min=1, help="Keep multiples of this step.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also delete the newest complete one and milestones.")] = False,
    as_json: _Json = False,
) -> None:
    """Delete old checkpoints, by the recipe's rule or yours, and the remains of interrupted saves."""
    from checkpoints_tools.prune import plan_prune
    from checkpoints_tools.prune import prune as carry_out

    plan = plan_prune(run, keep_last=keep_last, keep_every_steps=keep_every, steps=step or [], force=force)
    if not dry_run:
        carry_out(run, plan)
    content = {"run": str(run), "dry_run": dry_run, "checkpoints": [item.as_json() for item in plan]}
    _answer(content, as_json, ckpt_tables.print_plan)


def _answer(content: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], None]) -> None:
    if as_json:
        typer.echo(json.dumps(content, indent=2))
    else:
        show(content)


def _written(out: Path, step: int | None, as_json: bool) -> None:
    size_bytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    content = {"out": str(out), "step": step, "size_bytes": size_bytes}
    of_step = "" if step is None else f" (step {step})"
    _answer(content, as_json, lambda _: typer.echo(f"{out}: {size_bytes / 2**20:.1f} MiB{of_step}"))


def _bytes(gib: float | None) -> int | None:
    return None if gib is None else int(gib * 2**30)


def _warn(message: str) -> None:
    """Report a damaged checkpoint that is passed over for the previous one."""
    typer.echo(f"warning: {message} Using the previous checkpoint.", err=True)


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line at every quarter of the total in a log."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from pokevla.cli.terminal import PlainConsole

    console = PlainConsole(stderr=True)
    columns = (TextColumn(what), BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        quarters = 0

        def listen(done: int, total: int) -> None:
            nonlocal quarters
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and 4 * done // max(total, 1) > quarters:
                quarters = 4 * done // total
                console.print(f"{what}: {done / 2**20:.0f} of {total / 2**20:.0f} MiB")

        yield listen
