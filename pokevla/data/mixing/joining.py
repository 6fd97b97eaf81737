"""Questions about one image as one conversation.

A question whose picture has other questions says little alone: with all of them in one sequence, each answer is learnt
beside those that it must not be confused with, and the image is encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pokevla.data.dataset import Dataset
from pokevla.data.mixing.candidates import Candidates
from pokevla.recipe.schema import MixtureRecipe


def conversations(
    recipe: MixtureRecipe, datasets: Sequence[Dataset], candidates: Candidates, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Divide selected samples among the samples to write.

    Those of one category, source, split and image come together, up to `questions_per_sample` of their source. Samples
    without an image, or with several, stay alone. A conversation stands where the first of its questions stood.

    Args:
        rows: (n,) selected samples in the order in which they are written.

    Returns:
        The rows (n,) in their new order, and the first place of each sample to write and the end, (m + 1,) int64.
    """
    if candidates.image is None:
        return rows, np.arange(len(rows) + 1)
    inputs, own_rows = candidates.place(rows)
    most = np.array([source.questions_per_sample for source in recipe.sources])[inputs]
    for number in np.unique(inputs[most > 1]).tolist():
        its = np.flatnonzero(inputs == number)
        most[its[_num_images(datasets[number])[own_rows[its]] != 1]] = 1
    # Equal images may have several names, and the name decides the split.
    kinds = [(each.category, each.source, each.split) for each in candidates.classes]
    names = sorted(set(kinds))
    of_class = np.array([names.index(kind) for kind in kinds])
    order, starts = grouped([candidates.image[rows], of_class[candidates.kind[rows]]], most)
    return rows[order], starts


def grouped(keys: Sequence[np.ndarray], most: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring items with equal keys together, in groups of at most `most` (n,), each where the first of its items was.

    Args:
        keys: arrays (n,). Items whose `most` differs are not grouped either.

    Returns:
        The order (n,) int64 of the items, and the first place of each group and the end, (m + 1,) int64.
    """
    order = np.lexsort((*keys, most))  # stable: items of equal keys stay in their order
    is_new = np.ones(len(order), dtype=bool)
    if len(order):
        sorted_keys = [each[order] for each in (*keys, most)]
        is_new[1:] = np.any([each[1:] != each[:-1] for each in sorted_keys], axis=0)
    count = np.arange(len(order))
    rank = count - np.maximum.accumulate(np.where(is_new, count, 0))
    begins = np.maximum.accumulate(np.where(rank % most[order] == 0, count, 0))
    first = np.empty(len(order), dtype=np.int64)  # of the group of each item
    first[order] = order[begins]
    order = np.argsort(first, kind="stable")
    is_start = np.ones(len(order), dtype=bool)
    is_start[1:] = first[order][1:] != first[order][:-1]
    return order, np.append(np.flatnonzero(is_start), len(order))


def _num_images(dataset: Dataset) -> np.ndarray:
    """(n,) images of each sample of an input."""
    rows = dataset.rows
    if rows.has("num_images"):
        return rows.numbers("num_images", 0, len(rows))
    return np.minimum(rows.numbers("width", 0, len(rows)), 1)


def joined_record(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record of several about the same image, as JSON: the first, whose conversation goes on with the others.

    Key, task, kind of answer and target are those of the first. `orig.joined` are the keys of the others.
    """
    first, *others = records
    if not others:
        return first
    turns = [list(turn) for turn in first.get("further_turns", ())]
    for record in others:
        turns += [[record["question"], record["answer"]], *map(list, record.get("further_turns", ()))]
    return {
        **first,
        "further_turns": turns,
        "flags": list(dict.fromkeys(flag for record in records for flag in record.get("flags", ()))),
        "orig": {**(first.get("orig") or {}), "joined": [record["key"] for record in others]},
    }
