"""What is written about duplicates: the list of samples to leave out, and a report with counts and examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pokevla.data.screening.duplicates import CODES, Duplicates
from pokevla.data.screening.left_out import SCHEMA, new_result

EXAMPLES = 20
"""Samples of each code that the report shows."""
_ROWS = 1 << 14


def write_duplicates(found: Duplicates, out: Path, *, overwrite: bool) -> dict[str, Any]:
    """Write `left_out.parquet` and `report.json` to the folder `out`; returns the report.

    Raises DataError: `out` exists and may not be replaced, or writing failed.
    """
    report = duplicate_report(found)
    with new_result(out, lambda: report, overwrite=overwrite) as writer:
        numbers = np.flatnonzero(found.code)
        for start in range(0, len(numbers), _ROWS):
            rows = [_row(found, number) for number in numbers[start : start + _ROWS].tolist()]
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return report


def duplicate_report(found: Duplicates) -> dict[str, Any]:
    """Counts of all and by dataset, and the first examples of each code."""
    return {
        "kind": "duplicates",
        **found.figures,
        "left_out": found.counts(),
        "datasets": {
            str(dataset.root): {
                "fingerprint": dataset.fingerprint,
                "samples": len(dataset.rows),
                "left_out": found.counts(which),
            }
            for which, dataset in enumerate(found.datasets)
        },
        "examples": {
            code: [_example(found, number) for number in np.flatnonzero(found.code == value)[:EXAMPLES].tolist()]
            for value, code in enumerate(CODES)
            if value and (found.code == value).any()
        },
    }


def _row(found: Duplicates, number: int) -> dict[str, Any]:
    dataset, row = found.place(number)
    other, its_row = found.place(int(found.because[number]))
    its_key = other.rows.text("key", its_row)
    return {
        "dataset": str(dataset.root),
        "fingerprint": dataset.fingerprint,
        "row": row,
        "key": dataset.rows.text("key", row),
        "code": CODES[found.code[number]],
        "because": its_key if other is dataset else f"{other.root} {its_key}",
    }


def _example(found: Duplicates, number: int) -> dict[str, Any]:
    dataset, row = found.place(number)
    other, other_row = found.place(int(found.because[number]))
    texts = {name: dataset.rows.text(name, row)[:200] for name in ("question", "answer")}
    its = {f"its_{name}": other.rows.text(name, other_row)[:200] for name in ("question", "answer")}
    return {"dataset": str(dataset.root), **_row(found, number), **texts, "its_dataset": str(other.root), **its}
