"""Runs of one kind beside each other: the settings in which they differ, and their curves on the same axes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.curves import COLOURS, Chart, Line, charts_of, draw_lines, points_of
from monitoring.sources import Run
from pokevla.recipe.values import flat_values

ABSENT = "-"
NAMES = ("name", "output")
"""Settings that always differ and change nothing."""


@dataclass(frozen=True)
class Comparison:
    """What a reader sees of two or more runs of one kind."""

    title: str
    names: list[str]
    colours: list[str]
    settings: list[tuple[str, list[str]]]  # field, and its value in each run; only those that differ
    charts: list[tuple[str, str]]  # title, SVG text


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """One comparison for each kind of which there are two or more runs, in the order of the runs."""
    by_kind: dict[str, list[Run]] = {}
    for run in runs:
        by_kind.setdefault("unknown" if run.recipe is None else type(run.recipe).__name__, []).append(run)
    return [_comparison(group) for kind, group in by_kind.items() if kind != "unknown" and len(group) > 1]


def _comparison(runs: Sequence[Run]) -> Comparison:
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(runs))]
    names = short_names(runs)
    return Comparison(
        title=f"{runs[0].title}: {len(runs)} runs compared",
        names=names,
        colours=colours,
        settings=differing_settings(runs),
        charts=[(chart.title, overlay(chart, runs, names, colours)) for chart in _single_charts(runs)],
    )


def short_names(runs: Sequence[Run]) -> list[str]:
    """Folder names; the paths without what all have in common where two folders have the same name."""
    names = [run.folder.name for run in runs]
    if len(set(names)) == len(names):
        return names
    paths = [run.folder.resolve() for run in runs]
    common = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def differing_settings(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Settings whose values are not the same in all runs, in the order of the recipe; then code, packages, ranks."""
    settings = [{} if run.recipe is None else flat_values(run.recipe) for run in runs]
    fields = dict.fromkeys(field for values in settings for field in values if field not in NAMES)
    rows = [(field, [_shown(values[field]) if field in values else ABSENT for values in settings]) for field in fields]
    rows += [(name, [_manifest_value(run, path) for run in runs]) for name, path in _manifest_fields(runs)]
    return [(field, values) for field, values in rows if len(set(values)) > 1]


def _manifest_fields(runs: Sequence[Run]) -> list[tuple[str, tuple[str, ...]]]:
    packages = dict.fromkeys(name for run in runs for name in run.manifest.get("packages", {}))
    fixed: list[tuple[str, tuple[str, ...]]] = [
        ("commit", ("commit",)),
        ("uncommitted changes", ("dirty",)),
        ("ranks at the start", ("world_size",)),
        ("datasets (path and fingerprint)", ("datasets",)),
    ]
    return fixed + [(f"package {name}", ("packages", name)) for name in packages]


def _manifest_value(run: Run, path: tuple[str, ...]) -> str:
    value = run.manifest
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return ABSENT if value is None else _shown(value)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _single_charts(runs: Sequence[Run]) -> list[Chart]:
    """One chart for each field: with several runs in it, more fields could not be told apart."""
    found: dict[str, Chart] = {}
    for run in runs:
        for chart in charts_of(run.metrics):
            for field in chart.fields:
                title = chart.title if len(chart.fields) == 1 and "/" not in field else field
                if not points_of(run.metrics, field):
                    continue
                found.setdefault(field, Chart(title, (field,), chart.unit, chart.logarithmic))
    return list(found.values())


def overlay(chart: Chart, runs: Sequence[Run], names: Sequence[str], colours: Sequence[str]) -> str:
    """SVG text of one field of all runs that have it, in each run's colour."""
    (field,) = chart.fields
    lines = [
        Line(name, points, colour)
        for run, name, colour in zip(runs, names, colours, strict=True)
        if (points := points_of(run.metrics, field))
    ]
    return draw_lines(lines, chart.unit, chart.logarithmic)
