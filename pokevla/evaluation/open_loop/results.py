"""The folder of an open-loop evaluation: summary, one row per frame, and plots of some episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pokevla.errors import DataError
from pokevla.evaluation.folder import SUMMARY
from pokevla.evaluation.open_loop.errors import Column, action_columns
from pokevla.evaluation.open_loop.frames import Frames
from pokevla.evaluation.open_loop.plots import plot_episode
from pokevla.evaluation.result_folder import ResultFolder
from pokevla.evaluation.vlm.grounding import spread
from pokevla.files.texts import write_json
from pokevla.files.writing import atomic_folder

FRAMES, PLOTS = "frames.parquet", "plots"
FOLDER = ResultFolder("open_loop", "open-loop evaluation", (SUMMARY, FRAMES, f"{PLOTS}/episode-*.png"))
MOST_CHUNKS = 60
"""Chunks drawn into one panel; more hide each other."""


@dataclass(frozen=True)
class Predictions:
    """Chunks (N, K, A) by predictor, raw, of some frames."""

    frames: Frames
    chunks: Mapping[str, np.ndarray]
    episodes_plotted: int


def write_results(out: Path, summary: Mapping[str, Any], predictions: Predictions, *, overwrite: bool) -> None:
    """Write the folder, complete or not at all."""
    frames, embodiment = predictions.frames, predictions.frames.dataset.embodiment
    if embodiment is None:
        raise DataError(f"{frames.dataset.root} is a dataset of questions.", "Name a robot dataset.")
    columns = action_columns(embodiment)
    with atomic_folder(out, replaces=FOLDER.refuse_other if overwrite else None) as folder:
        write_json(folder / SUMMARY, summary)
        pq.write_table(_table(predictions), folder / FRAMES)
        for episode in _plotted(frames, predictions.episodes_plotted):
            _plot(folder / PLOTS / f"episode-{episode:06d}.png", predictions, episode, columns)


def verdict(summary: Mapping[str, Any]) -> str:
    """One sentence: whether the policy predicts better than the baselines."""
    if summary["beats_baselines"]:
        return "The policy predicts better than both baselines."
    names = [name for name, row in summary["gains"].items() if row["low"] <= 0]
    return f"The policy does not predict better than {' and '.join(f'the {name}' for name in names)}."


def _table(predictions: Predictions) -> pa.Table:
    """Row by row: which frame, and its chunks as flat lists of K * A raw values."""
    frames, count = predictions.frames, len(predictions.frames)
    columns: dict[str, Any] = {
        "key": [frames.key(index) for index in range(count)],
        "episode": frames.episodes,
        "frame": frames.numbers,
        "recorded": list(frames.actions.reshape(count, -1)),
    }
    columns |= {name.replace(" ", "_"): list(chunk.reshape(count, -1)) for name, chunk in predictions.chunks.items()}
    return pa.table(columns)


def _plotted(frames: Frames, most: int) -> list[int]:
    episodes = np.unique(frames.episodes)
    return [int(episodes[place]) for place in spread(len(episodes), most)] if most else []


def _plot(path: Path, predictions: Predictions, episode: int, columns: list[Column]) -> None:
    frames = predictions.frames
    true = frames.recorded(episode)
    own = np.flatnonzero(frames.episodes == episode)
    own = own[spread(len(own), MOST_CHUNKS)]
    chunks = [(int(frames.numbers[index]), predictions.chunks["policy"][index]) for index in own]
    name = frames.instructions[int(own[0])]
    plot_episode(path, f"episode {episode}: {name}", columns, true, chunks)
