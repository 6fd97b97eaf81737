"""The lists of samples to leave out, read for the inputs of a mixture, and checked to be about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pokevla.data.curation.rules import SCREENED
from pokevla.data.dataset import Dataset
from pokevla.data.mixing.candidates import LeftOut
from pokevla.data.mixing.summary import ListFacts
from pokevla.data.screening.left_out import REPORT_NAME, ROWS_NAME, read_codes
from pokevla.errors import DataError
from pokevla.files.texts import open_regular, read_json_object


def read_lists(paths: Sequence[Path], datasets: Sequence[Dataset]) -> tuple[list[dict[str, LeftOut]], list[ListFacts]]:
    """For each list what it leaves out, by fingerprint of the input; and what the summary says about it.

    Raises:
        DataError: a list is missing or damaged, was not made of one of the inputs, or names a sample that its dataset
            does not have.
    """
    lists, facts = [], []
    for path in paths:
        folder = path if path.is_dir() else path.parent
        report = read_json_object(folder / REPORT_NAME, remedy="Name the folder that --out of the check has written.")
        _refuse_uncovered(folder, report, datasets)
        of_inputs, codes = {}, Counter()
        for dataset in datasets:
            rows, named, keys = read_codes(folder, dataset.fingerprint)
            _refuse_unknown(folder, dataset, rows, keys)
            if strange := sorted(set(named.tolist()) - SCREENED.keys()):
                raise DataError(f"{folder / ROWS_NAME} has the unknown code {strange[0]!r}.", "Make the list again.")
            rows, firsts = np.unique(rows, return_index=True)
            of_inputs[dataset.fingerprint] = LeftOut(rows, named[firsts])
            codes.update(named[firsts].tolist())
        waived = [entry for entry in report.get("waived", ()) if isinstance(entry, dict)]
        digest = _digest(folder / ROWS_NAME)
        lists.append(of_inputs)
        facts.append(ListFacts(str(path), str(report.get("kind")), digest, dict(sorted(codes.items())), waived))
    return lists, facts


def _refuse_uncovered(folder: Path, report: dict[str, Any], datasets: Sequence[Dataset]) -> None:
    entries = report.get("datasets")
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise DataError(f"{folder / REPORT_NAME} does not say which datasets were checked.", "Make the list again.")
    checked = {entry.get("fingerprint") for entry in entries.values()}
    for dataset in datasets:
        if dataset.fingerprint not in checked:
            raise DataError(
                f"{folder} is not about {dataset.root}: its fingerprint {dataset.fingerprint[:12]} is not among those "
                "that were checked. Perhaps it was converted again since.",
                f"Run `pokevla data {report.get('kind', 'duplicates')}` again, with all sources of the recipe.",
            )


def _refuse_unknown(folder: Path, dataset: Dataset, rows: np.ndarray, keys: Sequence[str]) -> None:
    for row, key in zip(rows.tolist(), keys, strict=True):
        if not 0 <= row < len(dataset.rows) or dataset.rows.text("key", row) != key:
            raise DataError(
                f"{folder / ROWS_NAME} leaves out row {row} of {dataset.root}, {key}: there is no such sample.",
                "Make the list again.",
            )


def _digest(path: Path) -> str:
    digest = xxhash.xxh64()
    with open_regular(path) as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
