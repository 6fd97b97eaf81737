"""What is written about leakage: the list of samples to leave out, and every hit with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pokevla.data.dataset import Dataset
from pokevla.data.screening.deny_list import DenyList
from pokevla.data.screening.leakage import Hit
from pokevla.data.screening.left_out import SCHEMA, new_result
from pokevla.data.screening.waivers import Waiver, waiver_of

EXAMPLES = 20
"""Hits of each code that the report shows. The list has all that are not waived."""
_ROWS = 1 << 14


@dataclass
class LeakCounts:
    """Hits counted while they are found."""

    hits: Counter[str] = field(default_factory=Counter)
    waived: Counter[Waiver] = field(default_factory=Counter)
    samples: Counter[str] = field(default_factory=Counter)
    """Dataset -> hits that are not waived."""
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def leaks(self) -> int:
        """Hits that are not waived."""
        return sum(self.hits.values())

    def add(self, hit: Hit, waiver: Waiver | None) -> bool:
        """Count a hit; returns whether it stands."""
        if waiver is not None:
            self.waived[waiver] += 1
            return False
        self.hits[hit.code] += 1
        self.samples[str(hit.dataset.root)] += 1
        shown = self.examples.setdefault(hit.code, [])
        if len(shown) < EXAMPLES:
            question = hit.dataset.rows.text("question", hit.row)[:200]
            shown.append({**_row(hit), "question": question})
        return True


def count_leaks(hits: Iterable[Hit], waivers: Sequence[Waiver]) -> LeakCounts:
    """Count hits, without writing anything."""
    counts = LeakCounts()
    for hit in hits:
        counts.add(hit, waiver_of(hit, waivers))
    return counts


def write_leaks(
    hits: Iterable[Hit],
    datasets: Sequence[Dataset],
    deny: DenyList,
    waivers: Sequence[Waiver],
    out: Path,
    *,
    overwrite: bool,
) -> LeakCounts:
    """Write `left_out.parquet` and `report.json` to the folder `out` while hits are found.

    Raises DataError: `out` exists and may not be replaced, or writing failed.
    """
    counts = LeakCounts()
    rows: list[dict[str, Any]] = []
    with new_result(out, lambda: leak_report(counts, datasets, deny, waivers), overwrite=overwrite) as writer:
        for hit in hits:
            if counts.add(hit, waiver_of(hit, waivers)):
                rows.append(_row(hit))
            if len(rows) == _ROWS:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return counts


def leak_report(
    counts: LeakCounts, datasets: Sequence[Dataset], deny: DenyList, waivers: Sequence[Waiver]
) -> dict[str, Any]:
    """Counts, examples, and how often each waiver was used."""
    return {
        "kind": "leakage",
        "benchmarks": deny.benchmarks,
        "hits": dict(sorted(counts.hits.items())),
        "waived": [{**vars(waiver), "hits": counts.waived[waiver]} for waiver in waivers],
        "datasets": {
            str(dataset.root): {
                "fingerprint": dataset.fingerprint,
                "samples": len(dataset.rows),
                "hits": counts.samples[str(dataset.root)],
            }
            for dataset in datasets
        },
        "examples": dict(sorted(counts.examples.items())),
    }


def _row(hit: Hit) -> dict[str, Any]:
    return {
        "dataset": str(hit.dataset.root),
        "fingerprint": hit.dataset.fingerprint,
        "row": hit.row,
        "key": hit.key,
        "code": hit.code,
        "because": hit.because,
    }
