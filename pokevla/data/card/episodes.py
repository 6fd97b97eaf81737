"""The episodes of a robot dataset, read once and one at a time: counts, histograms, and what looks wrong."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import xxhash

from pokevla.data.card.columns import ColumnFigures
from pokevla.data.card.histogram import LengthHistogram
from pokevla.data.card.texts import TextCounts
from pokevla.data.dataset import CHECKS_NAME, Dataset
from pokevla.data.randomness import raw
from pokevla.data.recordings.checks import check_numbers
from pokevla.data.recordings.episode import Episode
from pokevla.data.recordings.faults import REFUSED, WARNED
from pokevla.data.recordings.report import Report
from pokevla.data.statistics import Statistics, compute_statistics
from pokevla.embodiment.finite import bad_number
from pokevla.errors import DataError
from pokevla.files.texts import read_json
from pokevla.recipe.checking.datasets import CONVERT_AGAIN, EPISODES_NAME

ODD_LENGTH = 3.0
"""An episode that is this many times longer or shorter than the median of its instruction is reported. Ours."""
SAMPLED_EPISODES = 400
"""Episodes that statistics are computed from, where the dataset has none."""
MAX_LISTED = 200
"""Episodes listed with what looks wrong, and of those with equal actions."""
_FEW = 5
"""With fewer episodes of an instruction, their lengths are compared with all."""
_CODES = {**REFUSED, **WARNED, "length_outlier": f"it is {ODD_LENGTH:g} times longer or shorter than is usual"}


@dataclass(frozen=True)
class _Row:
    """One row of the table of episodes."""

    episode: int
    split: str
    instruction: str
    length: int
    actions: np.ndarray
    proprio: np.ndarray


def episode_figures(dataset: Dataset, on_episode: Any = None) -> dict[str, Any]:
    """What the card of a robot dataset says about its episodes.

    Args:
        on_episode: called with (done, total) episodes.

    Raises:
        DataError: the table of episodes is damaged, or no numbers are left for statistics.
    """
    embodiment = dataset.embodiment
    if embodiment is None:
        raise DataError(f"{dataset.root} has no episodes.", "Use a robot dataset.")
    statistics = dataset.statistics or _sampled_statistics(dataset)
    columns, texts, lengths = ColumnFigures(embodiment, statistics), TextCounts(), LengthHistogram()
    splits: dict[str, Counter[str]] = {}
    total = int(dataset.info["num_episodes"] or 0)
    odd, table = _Oddities(dataset, total), _EpisodeTable()
    for done, row in enumerate(_rows(dataset), start=1):
        count = splits.setdefault(row.split, Counter())
        count.update(episodes=1, frames=row.length)
        texts.add([row.instruction])
        lengths.add(np.array([row.length]))
        table.add(row)
        columns.add(row.actions, row.proprio)
        odd.add(row, statistics)
        if on_episode is not None:
            on_episode(done, total)
    for episode, length, usual in table.odd_lengths():
        odd.notice_length(episode, length, usual)
    groups = table.equal_actions()
    return {
        "episodes": sum(count["episodes"] for count in splits.values()),
        "hours": sum(count["frames"] for count in splits.values()) / embodiment.control_rate_hz / 3600,
        "by_split": {name: dict(count) for name, count in sorted(splits.items())},
        "instructions": texts.to_dict(),
        "lengths": lengths.to_dict(),
        "actions": [column.to_dict() for column in columns.actions],
        "proprio": [column.to_dict() for column in columns.proprio],
        "equal_actions": {"episodes": sum(map(len, groups)), "groups": groups[:MAX_LISTED]},
        "statistics_of": "the dataset" if dataset.statistics else f"{SAMPLED_EPISODES} episodes at most",
        **odd.to_dict(),
    }


def _rows(dataset: Dataset) -> Iterator[_Row]:
    names = ["episode", "split", "instruction", "length", "actions", "proprio"]
    path = dataset.root / EPISODES_NAME
    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(batch_size=16, columns=names, use_threads=False):
            plain = {name: batch.column(name).to_pylist() for name in names[:4]}
            for place in range(len(batch)):
                yield _Row(
                    *(plain[name][place] for name in names[:4]),
                    *(_sequence(batch.column(name)[place].values) for name in names[4:]),
                )
    except (OSError, ValueError, KeyError) as error:  # Arrow's own errors are among them
        raise DataError(f"{path} cannot be read ({error}).", CONVERT_AGAIN) from error


def _sequence(frames: Any) -> np.ndarray:
    """(T, D) float64 of an Arrow list array of T lists."""
    numbers = frames.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return numbers.reshape(len(frames), -1) if len(frames) else numbers.reshape(0, 0)


def _sampled_statistics(dataset: Dataset) -> Statistics:
    """Statistics of some episodes without bad numbers, chosen by a hash of their numbers."""
    total = int(dataset.info["num_episodes"] or 0)
    keys = raw(total, "card", dataset.fingerprint)
    limit = np.sort(keys)[min(total, SAMPLED_EPISODES) - 1] if total else 0
    chosen = [row for number, row in enumerate(_rows(dataset)) if number < total and keys[number] <= limit]
    good = [row for row in chosen if bad_number(row.actions) is None and bad_number(row.proprio) is None]
    assert dataset.embodiment is not None
    return compute_statistics([row.actions for row in good], [row.proprio for row in good], dataset.embodiment)


class _EpisodeTable:
    """Four numbers of each episode, 32 bytes."""

    def __init__(self) -> None:
        self._numbers = [array("Q") for _ in range(4)]  # episode, length, instruction, hash of the actions
        self._instructions: dict[str, int] = {}

    def add(self, row: _Row) -> None:
        """Keep the numbers of an episode."""
        instruction = self._instructions.setdefault(row.instruction, len(self._instructions))
        digest = xxhash.xxh64_intdigest(np.ascontiguousarray(row.actions).data)
        for column, value in zip(self._numbers, (row.episode, row.length, instruction, digest), strict=True):
            column.append(value)

    def odd_lengths(self) -> list[tuple[int, int, float]]:
        """(episode, length, usual length) of those that are much longer or shorter than the median of their
        instruction, or of all where fewer than 5 have it."""
        episodes, lengths, instructions, _ = (np.asarray(column) for column in self._numbers)
        found: list[tuple[int, int, float]] = []
        for instruction in np.unique(instructions):
            own = np.flatnonzero(instructions == instruction)
            usual = float(np.median(lengths[own] if len(own) >= _FEW else lengths))
            is_odd = (lengths[own] * ODD_LENGTH < usual) | (lengths[own] > usual * ODD_LENGTH)
            found += [(int(episodes[i]), int(lengths[i]), usual) for i in own[is_odd]]
        return sorted(found)

    def equal_actions(self) -> list[list[int]]:
        """Episodes whose actions are equal to the last bit, in groups."""
        episodes, _, _, digests = (np.asarray(column) for column in self._numbers)
        order = np.argsort(digests, kind="stable")
        groups = np.split(episodes[order], np.flatnonzero(np.diff(digests[order])) + 1)
        return [group.tolist() for group in groups if len(group) > 1]


class _Oddities:
    """Episodes that look wrong: as the conversion of recordings found them, or else what the tables show."""

    def __init__(self, dataset: Dataset, total: int) -> None:
        self._dataset, self._report = dataset, Report(total)
        self.alarms: list[str] = []
        stored = dataset.root / CHECKS_NAME
        self._stored: dict[str, Any] | None = None
        if stored.is_file():
            self._stored = read_json(stored, remedy=CONVERT_AGAIN)
            if not isinstance(self._stored, dict) or not isinstance(self._stored.get("found"), list):
                raise DataError(f"{stored} is damaged.", CONVERT_AGAIN)

    def add(self, row: _Row, statistics: Statistics) -> None:
        """Check one episode."""
        name, embodiment = f"episode {row.episode}", self._dataset.embodiment
        for what, values in (("actions", row.actions), ("proprio", row.proprio)):
            bad = bad_number(values) if values.size else None
            if bad is not None:
                self.alarms.append(f"{name}: {what}, row {bad[0]}: {bad[1]}.")
                return
        if self._stored is None and embodiment is not None and row.length > 0:
            episode = Episode(row.instruction, row.actions, row.proprio, {})
            self._report.add(name, check_numbers(episode, embodiment, name), refused=False)
            self._report.weigh_outside([(name, row.actions, row.proprio)], statistics)

    def notice_length(self, episode: int, length: int, usual: float) -> None:
        """Report an episode that is much longer or shorter than usual."""
        name = f"episode {episode}"
        self._report.notice(name, "length_outlier", f"{name}: {length} frames, usual are {usual:g}.")

    def to_dict(self) -> dict[str, Any]:
        """`odd`: codes with counts, and a list of episodes with their findings."""
        found = self._report.content()
        rows, codes, source = found["found"], dict(found["codes"]), "computed from the tables"
        if self._stored is not None:
            rows = [*self._stored["found"], *rows]
            codes = {**self._stored.get("codes", {}), **codes}
            source = f"as the conversion found them ({CHECKS_NAME}), and lengths"
        explained = {code: {**numbers, "meaning": _CODES.get(code, "")} for code, numbers in codes.items()}
        return {
            "odd": {"source": source, "codes": explained, "episodes": len(rows), "listed": rows[:MAX_LISTED]},
            "alarms": self.alarms,
        }
