"""Displays a snapshot of a run: a dashboard for the terminal, one line for a log.

The dashboard is laid out for a width from 60 columns on. A figure with its unit is never split or shortened: what does
not fit beside it goes to the next line, and only sentences are wrapped.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from monitoring.live import Snapshot
from pokevla.files.labels import printable
from pokevla.telemetry.figures import duration, number, percent

BLOCKS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "×"
SPARK_POINTS = 60
SHOWN_CHECKPOINTS = 4
MIN_BAR, MAX_BAR = 10, 40
LABEL_WIDTH = 10
GAP = "   "
NO_BREAK = "\u00a0"
BORDER = 4
"""Columns of the panel's frame and padding."""
STYLES = {
    "running": "green", "starting": "cyan", "queued": "cyan", "finished": "bold green", "stopped": "yellow",
    "failed": "bold red", "unfinished": "yellow", "unreadable": "red", "new": "dim",
}  # fmt: skip
CONDITIONS = {"healthy": "green", "complete": "", "damaged": "bold red"}
QUIET_EVENTS = ("saved", "started")
MIB = 2**20
LOSSES = {"": "train", "val/": "held out", "val_swapped/": "images swapped"}
"""Prefix of a loss's name -> heading of its column."""
Figure = tuple[str, str, Callable[[float | None], str]]
FIGURES: dict[str, tuple[Figure, ...]] = {
    "learning": (("lr", "lr {}", number), ("grad_norm", "gradient norm {}", number)),
    "speed": (
        ("samples_per_s", "{} samples/s", number), ("step_s", "{} a step without saves", duration),
        ("step_s/max", "slowest rank works {} on it", duration), ("data_wait_share", "{} waiting for data", percent),
        ("tflops_per_rank", "{} TFLOP/s a rank", number), ("mfu", "MFU {}", percent),
    ),
    "rank 0": (
        ("rss_gib", "memory {} GiB", number), ("gpu_memory_gib", "GPU memory {} GiB", number),
        ("gpu_utilisation", "GPU busy {}", percent), ("gpu_power_w", "{} W", number),
    ),
}  # fmt: skip
"""Section -> (metric, its text, how its value is written)."""


def frame(snapshot: Snapshot, width: int, height: int | None = None) -> RenderableType:
    """The whole snapshot as a panel of `width` columns. With `height`, old events are left out to fit into it."""
    inner = width - BORDER
    lines = [
        *_wrapped(snapshot.run, inner, "bold"),
        *_progress(snapshot, inner),
        *_losses(snapshot.figures, inner),
        *(line for label in FIGURES for line in _figures(snapshot.figures, label, inner)),
        *_curve(snapshot, inner),
        *(_flow("ranks", _ranks(snapshot), inner) if snapshot.state != "finished" else []),
        *_checkpoints(snapshot, inner),
        *_flow("so far", _counts(snapshot), inner),
    ]
    ages = ["" if event["age_s"] is None else f"{duration(event['age_s'])} ago" for event in snapshot.events]
    size = max(map(len, ages), default=0)
    events = [_event(f"{age:>{size}}", event["text"], inner) for age, event in zip(ages, snapshot.events, strict=True)]
    while height is not None and events and len(lines) + sum(map(len, events)) + 2 > height:
        events.pop(0)
    lines += [line for event in events for line in event]
    return Panel(Group(*lines), title=Text(snapshot.state, STYLES[snapshot.state]), title_align="left", width=width)


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
        parts.append(f"ETA {duration(snapshot.eta_s)}")
    if snapshot.skipped:
        parts.append(f"skipped {snapshot.skipped}")
    if snapshot.reason:
        parts.append(snapshot.reason)
    return "  ".join(parts)


def _progress_text(snapshot: Snapshot) -> str:
    if not snapshot.steps:
        return f"{snapshot.step}"
    return f"{snapshot.step}/{snapshot.steps} ({percent(snapshot.step / snapshot.steps)})"


def _progress(snapshot: Snapshot, width: int) -> list[Text]:
    step = Text(f"step {_progress_text(snapshot)}")
    room = min(MAX_BAR, width - len(step) - len(GAP))
    if snapshot.steps and room >= MIN_BAR:
        done = round(room * min(1.0, snapshot.step / snapshot.steps))
        step = Text.assemble(step, GAP, ("━" * done, "green"), ("━" * (room - done), "dim"))
    times = [f"{duration(snapshot.step_s)} a step"] if snapshot.step_s is not None else []
    times += [f"ETA {duration(snapshot.eta_s)}"] if snapshot.eta_s is not None else []
    times += [f"last sign of life {duration(snapshot.age_s)} ago"] if snapshot.age_s is not None else []
    queue = snapshot.queue
    notes = [snapshot.reason, "" if queue is None or queue.text == snapshot.reason else queue.text]
    return [
        step,
        *(_flow(None, times, width) if times else []),
        *(line for note in notes if note for line in _wrapped(note, width, "dim")),
    ]


def _losses(figures: dict[str, float | None], width: int) -> list[Text]:
    """One row per loss; columns for training, held-out samples, and held-out samples with swapped images."""
    names = dict.fromkeys(name.removeprefix("val_swapped/").removeprefix("val/") for name in figures)
    prefixes = {prefix: title for prefix, title in LOSSES.items() if f"{prefix}loss" in figures}
    rows = {
        name.removeprefix("loss/"): [
            number(figures[cell]) if (cell := f"{prefix}{name}") in figures else "" for prefix in prefixes
        ]
        for name in names
        if name.split("/")[0] == "loss"
    }
    if not rows:
        return []
    titles = list(prefixes.values())
    first = max(LABEL_WIDTH, *(len(name) + 2 for name in rows))
    widths = [max(len(title), *(len(row[column]) for row in rows.values())) for column, title in enumerate(titles)]
    if first + sum(widths) + len(GAP) * len(widths) > width:  # no table fits: the figures of each loss in a line
        cells = {name: [f"{title} {text}" for title, text in zip(titles, row, strict=True) if text]
                 for name, row in rows.items()}  # fmt: skip
        return [line for name, row in cells.items() for line in _flow(name, row, width)]
    head = "".join(f"{GAP}{title:>{size}}" for title, size in zip(titles, widths, strict=True))
    lines = [Text.assemble(("loss".ljust(first), "bold"), (head, "dim"))]
    for name, row in rows.items():
        figures_text = "".join(f"{GAP}{text:>{size}}" for text, size in zip(row, widths, strict=True))
        label = "  total" if name == "loss" else f"  {name}"
        lines.append(Text.assemble((label.ljust(first), "dim"), figures_text))
    return lines


def _figures(figures: dict[str, float | None], label: str, width: int) -> list[Text]:
    cells = [text.format(write(figures[name])) for name, text, write in FIGURES[label] if name in figures]
    return _flow(label, cells, width) if cells else []


def _curve(snapshot: Snapshot, width: int) -> list[Text]:
    points = snapshot.history[-min(SPARK_POINTS, width - LABEL_WIDTH) :]
    if len(points) < 2:
        return []
    return [_labelled("curve", Text(sparkline(points), "cyan"))]


def _ranks(snapshot: Snapshot) -> list[Text]:
    beat = snapshot.slowest
    if beat is None:
        return [Text("no heartbeat", "dim")]
    cells = (
        f"slowest of {snapshot.ranks}: rank {beat['rank']} on {beat['host']}",
        f"step {beat['step']} ({beat['behind']} behind)",
        f"{beat['phase']} for {duration(beat['phase_s'])}",
        f"heartbeat {duration(beat['age_s'])} ago",
    )
    return [Text(cell, "yellow" if beat["behind"] > 1 else "") for cell in cells]


def _checkpoints(snapshot: Snapshot, width: int) -> list[Text]:
    if not snapshot.checkpoints:
        return _flow("saved", [Text("no checkpoint yet", "dim")], width)
    shown = snapshot.checkpoints[-SHOWN_CHECKPOINTS:]
    older = len(snapshot.checkpoints) - len(shown)
    rows = [
        [f"step {row['step']}", f"{duration(row['age_s'])} ago", f"{row['size_bytes'] / MIB:.1f} MiB", row["condition"]]
        for row in shown
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines: list[Text] = []
    for row in rows:
        cells = [Text(f"{text:>{size}}") for text, size in zip(row[:3], widths, strict=True)]
        lines += _flow("" if lines else "saved", [*cells, Text(row[3], CONDITIONS[row[3]])], width)
    return [*lines, *(_flow("", [Text(f"and {older} older", "dim")], width) if older else [])]


def _counts(snapshot: Snapshot) -> list[Text]:
    counts = {
        "steps skipped": snapshot.skipped,
        "restarts": snapshot.restarts,
        "damaged checkpoints": snapshot.damaged,
    }
    return [Text(f"{count} {name}", "yellow" if count and name != "restarts" else "") for name, count in counts.items()]


def _event(age: str, text: str, width: int) -> list[Text]:
    """An event and its age; a long one continues under itself."""
    head = f"{age}{GAP}"
    style = "dim" if text.startswith(QUIET_EVENTS) else ""
    parts = _wrapped(text, width - len(head), style)
    return [Text(head if number == 0 else " " * len(head), style) + part for number, part in enumerate(parts)]


def _labelled(label: str, content: Text) -> Text:
    return Text.assemble((f"{label:<{LABEL_WIDTH}}", "bold"), content)


def _flow(label: str | None, cells: Sequence[str | Text], width: int) -> list[Text]:
    """Cells beside each other, each whole, on as many lines as needed, behind a label (None: from the left edge).

    A cell that is wider than a line is wrapped at its words.
    """
    room = width if label is None else width - LABEL_WIDTH
    lines: list[Text] = []
    for cell in cells:
        text = Text(cell) if isinstance(cell, str) else cell
        if lines and len(lines[-1]) + len(GAP) + len(text) <= room:
            lines[-1] = Text.assemble(lines[-1], GAP, text)
        else:
            lines += _wrapped(text.plain, room, str(text.style)) if len(text) > room else [text]
    if label is None:
        return lines
    return [_labelled(label if number == 0 else "", line) for number, line in enumerate(lines)]


def _wrapped(text: str, width: int, style: str = "") -> list[Text]:
    """Lines of at most `width` columns. A number stays with the word before it."""
    bound = re.sub(r"(?<=\S) (?=-?\d)", NO_BREAK, printable(text))
    lines = textwrap.wrap(bound, width, break_on_hyphens=False)
    return [Text(line.replace(NO_BREAK, " "), style) for line in lines]


def sparkline(values: Sequence[float | None]) -> str:
    """One character per value, scaled from the lowest to the highest; × where it is not finite."""
    finite = [value for value in values if value is not None]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    step = (high - low) / (len(BLOCKS) - 1)
    return "".join(
        NOT_FINITE if value is None else BLOCKS[round((value - low) / step) if step > 0 else 0] for value in values
    )
