"""The samples of all inputs as columns, and what becomes of each before budgets: filters, lists, caps.

Nothing is kept per sample but a few numbers: about 20 bytes, 28 where questions about one image are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.dataset import Dataset
from pokevla.data.mixing.scanning import Chunk, SampleClass, read_scanned
from pokevla.errors import DataError
from pokevla.recipe.data_sections.mixing import CapConfig, MixtureSource
from pokevla.recipe.schema import MixtureRecipe

OPEN, NOT_WANTED, CAPPED, UNBALANCED, OVER_BUDGET, SELECTED = range(6)
LEFT_OUT = 16
"""Status of a sample that a list leaves out: this plus the number of its code."""
_KEPT = {"id": np.uint64, "kind": np.int32, "word": np.int8, "options": np.int8, "letter": np.int8, "points": np.int16}
_SALTS = {"cap": 1, "balance": 2, "budget": 3, "order": 4, "letter": 5}
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def step_hash(ids: np.ndarray, step: str) -> np.ndarray:
    """(n,) uint64 hashes of samples for one step of the choice, from their keyed hashes `ids` (n,).

    Each step has its own: among samples that a cap chose by the smallest hash of many, the next step would prefer those
    of large groups. The function is SplitMix64's (Steele, Lea and Flood, OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        mixed = ids + _GOLDEN * np.uint64(_SALTS[step])
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def smallest(rows: np.ndarray, ids: np.ndarray, step: str, count: int) -> np.ndarray:
    """Those `count` of `rows` whose samples have the smallest hashes of this step; of equal ones the first."""
    order = np.argsort(step_hash(ids[rows], step), kind="stable")
    return rows[order[:count]]


@dataclass
class Candidates:
    """Columns over the samples of all inputs, one input after the other, each in the order of its rows."""

    classes: list[SampleClass]
    codes: list[str]
    """Codes of the lists of samples to leave out."""
    starts: np.ndarray
    """(I+1,) int64: first sample of each input."""
    ids: np.ndarray  # (n,) uint64 keyed hashes
    kind: np.ndarray  # (n,) int32 numbers of classes
    word: np.ndarray
    options: np.ndarray
    letter: np.ndarray
    points: np.ndarray
    status: np.ndarray  # (n,) int8
    image: np.ndarray | None = None
    """(n,) uint64 hashes of images; None unless questions about one image are joined."""

    def __len__(self) -> int:
        return len(self.ids)

    def place(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((n,) int16 inputs, (n,) int64 rows in them) of samples."""
        inputs = np.searchsorted(self.starts, rows, side="right") - 1
        return inputs.astype(np.int16), rows - self.starts[inputs]


@dataclass(frozen=True)
class LeftOut:
    """Samples of one input that a list leaves out."""

    rows: np.ndarray  # (n,) int64 ascending, distinct
    codes: np.ndarray  # (n,) object, the code of each


def load_candidates(
    recipe: MixtureRecipe,
    datasets: Sequence[Dataset],
    chunks: Sequence[Chunk],
    folder: Path,
    lists: Sequence[Mapping[str, LeftOut]],
) -> Candidates:
    """Read the parts of a scan, and decide on filters, lists and caps.

    Args:
        lists: for each list, by fingerprint of an input, what it leaves out of it.

    Raises:
        DataError: a part is damaged, or two samples have the same key.
    """
    classes: dict[SampleClass, int] = {}
    codes: dict[str, int] = {}
    names = [*_KEPT, *(["image"] if any(source.questions_per_sample > 1 for source in recipe.sources) else [])]
    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}
    statuses, starts = [], [0]
    for number, (source, dataset) in enumerate(zip(recipe.sources, datasets, strict=True)):
        columns = _columns(folder, [n for n, chunk in enumerate(chunks) if chunk.dataset == number], classes)
        status = _wanted(recipe, source, list(classes), columns["kind"])
        for each in lists:
            _leave_out(status, each.get(dataset.fingerprint), codes)
        for cap in source.caps:
            _cap(status, columns, cap)
        statuses.append(status)
        starts.append(starts[-1] + len(status))
        for name in names:
            kept[name].append(columns[name])
    arrays = {name: np.concatenate(parts) for name, parts in kept.items()}
    ids = arrays.pop("id")
    made = Candidates(list(classes), list(codes), np.array(starts), ids, **arrays, status=np.concatenate(statuses))
    _refuse_equal_keys(made, datasets)
    return made


def _columns(folder: Path, numbers: Sequence[int], classes: dict[SampleClass, int]) -> dict[str, np.ndarray]:
    """All columns of one input; `kind` numbers `classes`, which grow."""
    parts = []
    for number in numbers:
        names, columns = read_scanned(folder, number)
        places = np.array([classes.setdefault(name, len(classes)) for name in names], dtype=np.int32)
        parts.append({**columns, "kind": places[columns["kind"]]})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _wanted(
    recipe: MixtureRecipe, source: MixtureSource, classes: Sequence[SampleClass], kind: np.ndarray
) -> np.ndarray:
    """Status (n,) int8 after the filters."""
    taken = set(recipe.categories) & set(source.categories or recipe.categories)
    is_wanted = np.array(
        [
            each.category in taken and source.at_most.get(each.task) != 0 and recipe.split in ("all", each.split)
            for each in classes
        ],
        dtype=bool,
    )
    return np.where(is_wanted[kind], OPEN, NOT_WANTED).astype(np.int8)


def _leave_out(status: np.ndarray, left_out: LeftOut | None, codes: dict[str, int]) -> None:
    if left_out is None:
        return
    for code in sorted(set(left_out.codes.tolist())):
        rows = left_out.rows[left_out.codes == code]
        status[rows[status[rows] == OPEN]] = LEFT_OUT + codes.setdefault(code, len(codes))


def _cap(status: np.ndarray, columns: Mapping[str, np.ndarray], cap: CapConfig) -> None:
    groups = columns[cap.by]
    if cap.by == "run":  # of all samples: one that was left out does not divide a run
        groups = np.cumsum(np.concatenate(([True], groups[1:] != groups[:-1])))
    rows = np.flatnonzero(status == OPEN)
    if not len(rows):
        return
    order = rows[np.lexsort((step_hash(columns["id"][rows], "cap"), groups[rows]))]
    is_first = np.concatenate(([True], groups[order][1:] != groups[order][:-1]))
    firsts = np.flatnonzero(is_first)
    rank = np.arange(len(order)) - firsts[np.cumsum(is_first) - 1]
    status[order[rank >= cap.at_most]] = CAPPED


def _refuse_equal_keys(candidates: Candidates, datasets: Sequence[Dataset]) -> None:
    order = np.argsort(candidates.ids, kind="stable")
    same = np.flatnonzero(candidates.ids[order][1:] == candidates.ids[order][:-1])
    for place in same.tolist():  # hardly ever of different keys: 10^-5 for 20 million samples
        (one, other), (row, its_row) = candidates.place(order[place : place + 2])
        key = datasets[one].rows.text("key", int(row))
        if datasets[other].rows.text("key", int(its_row)) == key:
            raise DataError(
                f"The sample {key} is in {datasets[one].root} and in {datasets[other].root}.",
                "Name each converted set once.",
            )


def counted(candidates: Candidates, of: Callable[[SampleClass], Any]) -> dict[Any, np.ndarray]:
    """For each value of `of` the number of samples by status, (S,) int64."""
    size = LEFT_OUT + max(1, len(candidates.codes))
    table = np.bincount(
        candidates.kind.astype(np.int64) * size + candidates.status, minlength=len(candidates.classes) * size
    ).reshape(-1, size)
    result: dict[Any, np.ndarray] = {}
    for each, row in zip(candidates.classes, table, strict=True):
        result[of(each)] = result.get(of(each), 0) + row
    return result
