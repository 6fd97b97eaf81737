"""Displays a snapshot of a run: a dashboard for the terminal, one line for a log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from monitoring.live import Snapshot
from pokevla.telemetry.figures import duration, number, percent

BLOCKS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "×"
SPARK_POINTS = 60
SHOWN_CHECKPOINTS = 4
STYLES = {
    "running": "green", "queued": "cyan", "finished": "bold green", "stopped": "yellow", "failed": "bold red",
    "unreadable": "red", "new": "dim",
}  # fmt: skip
CONDITIONS = {"healthy": "green", "complete": "", "damaged": "bold red"}
QUIET_EVENTS = ("saved", "started")
MIB = 2**20

LOSSES = {"": "train", "val/": "held out", "val_swapped/": "images swapped"}
"""Prefix of a loss's name -> heading of its column."""


def frame(snapshot: Snapshot) -> RenderableType:
    """The whole snapshot as a panel."""
    parts: list[RenderableType] = [_progress(snapshot), _figures(snapshot)]
    if len(snapshot.history) > 1:
        points = snapshot.history[-SPARK_POINTS:]
        parts.append(Text(f"loss of the last {len(points)} lines  ") + Text(sparkline(points), style="cyan"))
    parts += [_hosts(snapshot), _checkpoints(snapshot), _events(snapshot)]
    title = Text.assemble((snapshot.run, "bold"), "  ", (snapshot.state, STYLES[snapshot.state]))
    return Panel(Group(*parts), title=title, title_align="left", padding=(0, 1))


def line(snapshot: Snapshot) -> str:
    """One line for a log: state, progress, loss."""
    figures = snapshot.figures
    parts = [snapshot.state, f"step {_progress_text(snapshot)}"]
    if "loss" in figures:
        parts.append(f"loss {number(figures['loss'])}")
    if "lr" in figures:
        parts.append(f"lr {number(figures['lr'])}")
    if figures.get("samples_per_s") is not None:
        parts.append(f"{number(figures['samples_per_s'])} samples/s")
    if figures.get("data_wait_share") is not None:
        parts.append(f"wait {percent(figures['data_wait_share'])}")
    if snapshot.eta_s is not None:
        parts.append(f"ends in {duration(snapshot.eta_s)}")
    if snapshot.skipped:
        parts.append(f"skipped {snapshot.skipped}")
    if snapshot.reason:
        parts.append(snapshot.reason)
    return "  ".join(parts)


def _progress_text(snapshot: Snapshot) -> str:
    if not snapshot.steps:
        return f"{snapshot.step}"
    return f"{snapshot.step}/{snapshot.steps} ({percent(snapshot.step / snapshot.steps)})"


def _progress(snapshot: Snapshot) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=snapshot.steps or 1, completed=snapshot.step if snapshot.steps else 0, width=40)
    speed = "" if snapshot.step_s is None else f"{duration(snapshot.step_s)} a step"
    ends = "" if snapshot.eta_s is None else f"ends in {duration(snapshot.eta_s)}"
    seen = "" if snapshot.age_s is None else f"last sign of life {duration(snapshot.age_s)} ago"
    grid.add_row(f"step {_progress_text(snapshot)}", bar, speed, ends)
    notes = "   ".join(text for text in (snapshot.reason, seen) if text)
    queue = snapshot.queue
    if queue is not None and queue.text != snapshot.reason:
        notes += f"   {queue.text}"
    return Group(grid, Text(notes, style="dim"))


def _figures(snapshot: Snapshot) -> RenderableType:
    """Four columns: losses, learning, speed, machine."""
    figures = snapshot.figures
    columns = [
        ("learning", _format_fields(figures, {"lr": number, "grad_norm": number, "skipped": number})),
        (
            "speed",
            _format_fields(
                figures,
                {
                    "samples_per_s": number, "step_s": duration, "step_s/max": duration, "data_wait_share": percent,
                    "tflops_per_rank": number, "mfu": percent,
                },
            ),
        ),
        (
            "machine (rank 0)",
            _format_fields(
                figures,
                {"rss_gib": number, "gpu_memory_gib": number, "gpu_utilisation": percent, "gpu_power_w": number},
            ),
        ),
    ]  # fmt: skip
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=True, header_style="bold")
    table.add_column("loss")
    for title, _ in columns:
        table.add_column(title)
    table.add_row(_losses(figures), *(_pairs(values) for _, values in columns))
    return table


def _losses(figures: dict[str, float | None]) -> RenderableType:
    """One row per loss; columns for training, held-out samples, and held-out samples with swapped images."""
    names = dict.fromkeys(name.removeprefix("val_swapped/").removeprefix("val/") for name in figures)
    prefixes = {prefix: title for prefix, title in LOSSES.items() if f"{prefix}loss" in figures}
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=len(prefixes) > 1, header_style="dim")
    table.add_column("", style="dim")
    for title in prefixes.values():
        table.add_column(title, justify="right")
    for name in names:
        if name.split("/")[0] == "loss":
            cells = (f"{prefix}{name}" for prefix in prefixes)
            shown = [number(figures[cell]) if cell in figures else "" for cell in cells]
            table.add_row(name.removeprefix("loss/"), *shown)
    return table


def _format_fields(figures: dict[str, float | None], formats: dict[str, Any]) -> dict[str, str]:
    """The fields of `formats` that `figures` has, as text."""
    return {name: format_value(figures[name]) for name, format_value in formats.items() if name in figures}


def _pairs(values: dict[str, str]) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim")
    grid.add_column(justify="right")
    for name, text in values.items():
        grid.add_row(name, text)
    return grid


def _hosts(snapshot: Snapshot) -> RenderableType:
    beat = snapshot.slowest
    if beat is None:
        return Text("hosts: no heartbeat", style="dim")
    text = (
        f"slowest of {snapshot.ranks} ranks: {beat['host']}, rank {beat['rank']}, step {beat['step']}"
        f" ({beat['behind']} behind), {beat['phase']} for {duration(beat['phase_s'])}, "
        f"heartbeat {duration(beat['age_s'])} ago"
    )
    return Text(text, style="yellow" if beat["behind"] > 1 else "")


def _checkpoints(snapshot: Snapshot) -> RenderableType:
    if not snapshot.checkpoints:
        return Text("checkpoints: none yet", style="dim")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("checkpoint", "age", "MiB", ""):
        table.add_column(title, justify="right")
    for row in snapshot.checkpoints[-SHOWN_CHECKPOINTS:]:
        state = Text(row["condition"], style=CONDITIONS[row["condition"]])
        size = f"{row['size_bytes'] / MIB:.1f}"
        table.add_row(f"step {row['step']}", duration(row["age_s"]), size, state)
    more = len(snapshot.checkpoints) - SHOWN_CHECKPOINTS
    return Group(table, Text(f"and {more} older", style="dim")) if more > 0 else table


def _events(snapshot: Snapshot) -> RenderableType:
    head = f"skipped steps {snapshot.skipped}   restarts {snapshot.restarts}   damaged checkpoints {snapshot.damaged}"
    lines = [Text(head, style="yellow" if snapshot.skipped or snapshot.damaged else "")]
    for event in snapshot.events:
        age = "" if event["age_s"] is None else f"{duration(event['age_s'])} ago"
        quiet = event["text"].startswith(QUIET_EVENTS)
        lines.append(
            Text(f"  {age:>14}  {event['text']}", style="dim" if quiet else "", no_wrap=True, overflow="ellipsis")
        )
    return Group(*lines)


def sparkline(values: Sequence[float | None]) -> str:
    """One character per value, scaled from the lowest to the highest; × where it is not finite."""
    finite = [value for value in values if value is not None]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    step = (high - low) / (len(BLOCKS) - 1)
    return "".join(
        NOT_FINITE if value is None else BLOCKS[round((value - low) / step) if step > 0 else 0] for value in values
    )
