"""Tables shown at the end of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table


def trials_table(summary: Mapping[str, Any], title: str) -> Table:
    """Policies (and suites, if several) with successes, Wilson 95 % interval, crashes and costs; the caption has the
    settings."""
    table = Table(title=title, caption=settings_line(summary["settings"]), title_justify="left")
    table.add_column("policy")
    for column in ("successes", "rate", "95 % interval", "crashed", "mean steps", "s/trial", "mask IoU"):
        table.add_column(column, justify="right")
    for name, row in _rows(summary):
        rate = row["successes"] / row["trials"] if row["trials"] else None
        table.add_row(
            name,
            f"{row['successes']}/{row['trials']}",
            _number(rate, ".2f"),
            f"{row['low']:.2f} to {row['high']:.2f}",
            str(row["crashed"]),
            _number(row["mean_steps"], ".0f"),
            _number(row["mean_seconds"], ".1f"),
            _number(row.get("mask_iou"), ".2f"),
        )
    return table


def _rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each policy, and below it its suites if there are several."""
    by_suite = summary.get("suites", {})
    for name, row in summary["policies"].items():
        yield name, row
        if len(by_suite) > 1:
            yield from ((f"  {suite}", policies[name]) for suite, policies in by_suite.items() if name in policies)


def grounding_table(summary: Mapping[str, Any], title: str) -> Table:
    """Models with the share of points inside the mask and of correct choices."""
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    for column in ("points inside", "95 % interval", "asked", "distinct answers", "choices right", "asked"):
        table.add_column(column, justify="right")
    for name, row in summary.items():
        table.add_row(
            name,
            _number(row["point_accuracy"], ".3f"),
            f"{row['point_low']:.2f} to {row['point_high']:.2f}",
            str(row["point_questions"]),
            str(row["distinct_points"]),
            _number(row["choice_accuracy"], ".3f"),
            str(row["choice_questions"]),
        )
    return table


def settings_line(settings: Mapping[str, Any]) -> str:
    """One line with the settings that must be equal for two tables to be comparable."""
    shift = settings["target_shift_m"]
    moved = (
        "the benchmark's own placement"
        if shift is None
        else f"target moved up to {shift[1]} m in x and y, at least {shift[0]} m in one"
    )
    rendering = "fast rendering (not for published numbers)" if settings["fast_rendering"] else "default rendering"
    return (
        f"{', '.join(suites_of(settings))}, {moved}, {settings['image_size']} px, {rendering}, "
        f"{steps_of(settings)} steps, {simulator(settings)}"
    )


def suites_of(settings: Mapping[str, Any]) -> list[str]:
    """Suites of an evaluation, also of one that was written when there was only one."""
    return settings["suites"] if "suites" in settings else [settings["suite"]]


def steps_of(settings: Mapping[str, Any]) -> str:
    """Step limit of the trials, or those of several suites: `280, 220`."""
    limits = settings["max_steps"]
    values = [limits] if isinstance(limits, int) else list(dict.fromkeys(limits.values()))
    return ", ".join(map(str, values))


def simulator(settings: Mapping[str, Any]) -> str:
    """Name of the simulator, with its version where it decides the result."""
    return f"MuJoCo {settings['mujoco']}" if "mujoco" in settings else f"environment {settings['environment']}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
