"""Plots of predicted chunks over the recorded actions of whole episodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pokevla.evaluation.open_loop.errors import Column
from pokevla.files.writing import atomic_path

_TRUE, _PREDICTED = "#1f2937", "#d97706"


def plot_episode(
    path: Path, title: str, columns: Sequence[Column], true: np.ndarray, chunks: Sequence[tuple[int, np.ndarray]]
) -> None:
    """Draw one episode to a PNG: a panel for each action column.

    Args:
        path: file to write.
        title: above the panels.
        columns: names and units.
        true: (T, A) recorded actions, raw.
        chunks: (first frame, (K, A) raw actions) of the predictions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    per_row = 2
    rows = -(-len(columns) // per_row)
    figure = Figure(figsize=(10, 1.7 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, per_row, sharex=True, squeeze=False)
    for number, column in enumerate(columns):
        panel = panels[number // per_row][number % per_row]
        panel.plot(true[:, number] * column.scale, color=_TRUE, linewidth=1.6, label="recorded")
        for first, chunk in chunks:
            frames = np.arange(first, first + len(chunk))
            panel.plot(frames, chunk[:, number] * column.scale, color=_PREDICTED, linewidth=1.0, alpha=0.8)
            panel.plot(frames[:1], chunk[:1, number] * column.scale, ".", color=_PREDICTED, markersize=4)
        panel.plot([], [], color=_PREDICTED, label="predicted chunks")
        panel.set_title(f"{column.name} ({column.unit})" if column.unit != "1" else column.name, fontsize=9)
        panel.tick_params(labelsize=8)
    for panel in panels.ravel()[len(columns) :]:
        panel.set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("frame", fontsize=8)
    panels[0][0].legend(fontsize=7, loc="best")
    figure.suptitle(title, fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
