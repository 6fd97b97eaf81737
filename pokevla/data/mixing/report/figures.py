"""Everything that the report of a mixture says, as plain values, from its finished folder alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.card.questions import GRID
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.mixing.report.alarms import alarms_of
from pokevla.data.mixing.report.answers import letter_figures, yes_no_figures
from pokevla.data.mixing.report.counting import MOST_POINTS, ClassFigures, SampleKind, count_dataset, joined
from pokevla.data.mixing.report.diversity import measure_diversity
from pokevla.data.mixing.report.lengths import WITHOUT_TOKENIZER, LengthCounts, Measure
from pokevla.data.mixing.report.pictures import chosen_samples, sample_pictures
from pokevla.data.mixing.summary import MixtureSummary, in_order, read_summary
from pokevla.errors import DataError

COARSE = 4
"""Cells along each side of the map in which positions are given as shares."""
Counting = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""What is counted -> a context that gives a listener for (done, total)."""
_REMEDY = "Make the mixture again: pokevla data mix"


def mixture_figures(
    folder: Path, counting: Counting, measures: Sequence[Measure] = WITHOUT_TOKENIZER
) -> tuple[MixtureSummary, dict[str, Any]]:
    """The summary of a mixture and what the report says beyond it: diversity of questions, where points and boxes lie,
    letters, points per answer, lengths, some pictures, alarms. Pictures are decoded for the samples that are shown.

    Args:
        folder: holds `mixture.json`.
        counting: shows progress.
        measures: what lengths are given in.

    Raises:
        DataError: the mixture is incomplete, or one of its tables is damaged. Damaged pictures are among the figures.
    """
    summary = read_summary(folder)
    datasets = {name: _opened(folder / name, facts) for name, facts in summary.datasets.items()}
    found: dict[SampleKind, ClassFigures] = {}
    total, before = sum(len(dataset.rows) for dataset in datasets.values()), 0
    with counting("samples read") as on_sample:
        for name, dataset in datasets.items():
            count_dataset(name, dataset, measures, found, lambda done, start=before: on_sample(start + done, total))
            before += len(dataset.rows)
    order = {name: place for place, name in enumerate(in_order(kind.category for kind in found))}
    found = {kind: found[kind] for kind in sorted(found, key=lambda each: (order[each.category], each[1:]))}
    with counting("pictures") as on_picture:
        pictures, damaged = sample_pictures(datasets, chosen_samples(found, summary.seed), on_picture)
    figures: dict[str, Any] = {
        "samples": total,
        "groups": _groups(datasets, found, measures),
        "positions": _positions(found),
        "points": _points(found),
        "lengths": _lengths(found, measures),
        "letters": letter_figures(summary),
        "yes_no": yes_no_figures(summary),
        "pictures": pictures,
        "damaged": damaged,
    }
    return summary, {**figures, "alarms": alarms_of(summary, figures)}


def _opened(root: Path, facts: Mapping[str, Any]) -> Dataset:
    dataset = open_dataset(root, mapped=True)
    if dataset.fingerprint != facts.get("fingerprint"):
        raise DataError(f"{root} is not the dataset that mixture.json is about: its fingerprint differs.", _REMEDY)
    return dataset


def _groups(
    datasets: Mapping[str, Dataset], found: Mapping[SampleKind, ClassFigures], measures: Sequence[Measure]
) -> list[dict[str, Any]]:
    """A row for each category (`source` is None), and below it one for each of its sources."""
    rows = []
    for category in dict.fromkeys(kind.category for kind in found):
        its = [kind for kind in found if kind.category == category]
        for source in [None, *sorted({kind.source for kind in its})]:
            kinds = [kind for kind in its if source in (None, kind.source)]
            rows.append({"category": category, "source": source, **_group(datasets, found, kinds, measures)})
    return rows


def _group(
    datasets: Mapping[str, Dataset],
    found: Mapping[SampleKind, ClassFigures],
    kinds: Sequence[SampleKind],
    measures: Sequence[Measure],
) -> dict[str, Any]:
    figures = joined(found[kind] for kind in kinds)
    diversity = measure_diversity(np.asarray(figures.questions), np.asarray(figures.heads))
    return {
        "samples": figures.samples,
        "without_image": figures.without_image,
        "several_lines": figures.several_lines,
        "distinct": diversity.distinct,
        "share_distinct": diversity.share_distinct,
        "share_top": diversity.share_top,
        "top": _question(datasets, found, kinds, diversity.first),
        "entropy": diversity.entropy,
        "answers": {m.name: _numbers(figures.answer_lengths.get(m.name, LengthCounts())) for m in measures},
    }


def _question(
    datasets: Mapping[str, Dataset], found: Mapping[SampleKind, ClassFigures], kinds: Iterable[SampleKind], place: int
) -> str:
    """The question at a place of the samples of several classes, one after the other; empty for a negative place."""
    for kind in kinds if place >= 0 else ():
        if place < found[kind].samples:
            return datasets[kind.dataset].rows.text("question", found[kind].rows[place])
        place -= found[kind].samples
    return ""


def _numbers(lengths: LengthCounts) -> dict[str, Any]:
    plain = lengths.to_dict()
    return {name: plain[name] for name in ("total", "mean", "median", "q95", "largest")}


def _merged(
    found: Mapping[SampleKind, ClassFigures], name: Callable[[SampleKind], tuple[str, ...]]
) -> dict[tuple[str, ...], ClassFigures]:
    """The figures of all classes of the same name joined, in the order of the classes."""
    names: dict[tuple[str, ...], list[ClassFigures]] = {}
    for kind, figures in found.items():
        names.setdefault(name(kind), []).append(figures)
    return {each: joined(parts) for each, parts in names.items()}


def _positions(found: Mapping[SampleKind, ClassFigures]) -> list[dict[str, Any]]:
    """Of each category and kind of answer: how many points (of boxes: centres), how many in each cell, and their shares
    in `COARSE` x `COARSE` cells and in the quarter around the centre."""
    rows = []
    for (category, kind), figures in _merged(found, lambda each: (each.category, each.answer_kind)).items():
        count = int(figures.grid.sum())
        if not count:
            continue
        step = GRID // COARSE
        coarse = figures.grid.reshape(COARSE, step, COARSE, step).sum(axis=(1, 3)) / count
        centre = figures.grid[GRID // 4 : -GRID // 4, GRID // 4 : -GRID // 4].sum() / count
        rows.append(
            {"category": category, "kind": kind, "count": count, "grid": figures.grid.tolist(),
             "coarse": coarse.tolist(), "centre": float(centre)}
        )  # fmt: skip
    return rows


def _points(found: Mapping[SampleKind, ClassFigures]) -> list[dict[str, Any]]:
    """Of answers that are points or traces: how many answers have how many points."""
    its = {kind: figures for kind, figures in found.items() if kind.answer_kind in ("point", "trace")}
    return [
        {"category": category, "kind": kind, "answers": figures.samples, "counts": figures.points.tolist(),
         "mean": float((figures.points * np.arange(MOST_POINTS + 1)).sum() / figures.samples)}
        for (category, kind), figures in _merged(its, lambda each: (each.category, each.answer_kind)).items()
    ]  # fmt: skip


def _lengths(found: Mapping[SampleKind, ClassFigures], measures: Sequence[Measure]) -> dict[str, Any]:
    """`units`: names of the measures. `rows`: of each category and unit the histograms of questions and answers, and
    the category's share of all samples and of the length of all answers."""
    merged = _merged(found, lambda each: (each.category,))
    samples, rows = sum(each.samples for each in merged.values()), []
    for measure in measures:
        total = sum(each.answer_lengths[measure.name].total for each in merged.values())
        rows += [
            {
                "category": category,
                "unit": measure.name,
                "questions": each.question_lengths[measure.name].to_dict(),
                "answers": each.answer_lengths[measure.name].to_dict(),
                "share_samples": each.samples / samples,
                "share_answers": each.answer_lengths[measure.name].total / total if total else 0.0,
            }
            for (category,), each in merged.items()
        ]
    return {"units": [measure.name for measure in measures], "rows": rows}
