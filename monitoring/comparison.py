"""Comparison of runs of one kind: the settings in which they differ, and their curves on the same axes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitoring.curves import NUM_COLOURS, Chart, Line, Plot, charts_of, draw_lines, points_of
from monitoring.report.inputs import Run
from pokevla.recipe.kinds import kind_of
from pokevla.recipe.values import ABSENT, differences, flat_values, value_text

NONE = "-"
"""Shown for a setting that a run does not have."""
NAMES = ("name", "output")
"""Settings that always differ and have no effect."""
MANIFEST_TITLES = {
    "commit": "commit",
    "dirty": "uncommitted changes",
    "world_size": "ranks at the start",
    "datasets": "datasets (path and fingerprint)",
}


@dataclass(frozen=True)
class Comparison:
    """Comparison of two or more runs of one kind."""

    title: str
    names: list[str]
    colours: list[int]  # of the style sheet
    settings: list[tuple[str, list[str]]]  # field, and its value in each run; only those that differ
    charts: list[tuple[str, Plot]]  # title, curves


def compare(runs: Sequence[Run]) -> list[Comparison]:
    """One comparison for each kind with two or more runs, in the order of the runs."""
    by_kind: dict[str, list[Run]] = {}
    for run in runs:
        by_kind.setdefault("unknown" if run.recipe is None else kind_of(run.recipe).name, []).append(run)
    return [_comparison(group) for kind, group in by_kind.items() if kind != "unknown" and len(group) > 1]


def _comparison(runs: Sequence[Run]) -> Comparison:
    colours = [index % NUM_COLOURS for index in range(len(runs))]
    names = short_names(runs)
    return Comparison(
        title=f"{runs[0].title}: {len(runs)} runs compared",
        names=names,
        colours=colours,
        settings=differing_settings(runs),
        charts=[(chart.title, overlay(chart, runs, names, colours)) for chart in _single_charts(runs)],
    )


def short_names(runs: Sequence[Run]) -> list[str]:
    """Folder names; if two are equal, the paths without their common part."""
    names = [run.folder.name for run in runs]
    if len(set(names)) == len(names):
        return names
    paths = [run.folder.resolve() for run in runs]
    common = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, common) for path in paths]


def differing_settings(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Settings whose values differ between runs, in the order of the recipe; then code, packages, ranks."""
    settings = differences(*({} if run.recipe is None else flat_values(run.recipe) for run in runs))
    made_with = differences(*(_manifest_values(run.manifest) for run in runs))
    rows = [*((field, row) for field, row in settings.items() if field not in NAMES), *made_with.items()]
    return [(field, [NONE if value is ABSENT else value_text(value) for value in row]) for field, row in rows]


def _manifest_values(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Code and machine of a run from its manifest, by displayed name."""
    values = {title: manifest[name] for name, title in MANIFEST_TITLES.items() if manifest.get(name) is not None}
    return values | {f"package {name}": version for name, version in manifest.get("packages", {}).items()}


def _single_charts(runs: Sequence[Run]) -> list[Chart]:
    """One chart per field: with several runs, more fields could not be distinguished."""
    by_field: dict[str, Chart] = {}
    for run in runs:
        for chart in charts_of(run.metrics):
            for field in chart.fields:
                title = chart.title if len(chart.fields) == 1 and "/" not in field else field
                if not points_of(run.metrics, field):
                    continue
                by_field.setdefault(field, Chart(title, (field,), chart.unit, chart.logarithmic))
    return list(by_field.values())


def overlay(chart: Chart, runs: Sequence[Run], names: Sequence[str], colours: Sequence[int]) -> Plot:
    """One field, with a curve in the colour of each run that has it."""
    (field,) = chart.fields
    lines = [
        Line(name, points, colour)
        for run, name, colour in zip(runs, names, colours, strict=True)
        if (points := points_of(run.metrics, field))
    ]
    return draw_lines(lines, chart.unit, chart.logarithmic)
