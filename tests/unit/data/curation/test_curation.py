"""The way from rows to a dataset, for any source."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pokevla.data.curation.conversion import CurationSettings, convert_source, prepare_slice
from pokevla.data.curation.drafts import Draft, ImageFile, Row, RowFile
from pokevla.data.curation.row_files import CHUNK_ROWS
from pokevla.data.dataset import CHECKS_NAME, open_dataset
from pokevla.errors import DataError, UsageError
from tests.unit.data.curation.published import save


@dataclass(frozen=True)
class Letters:
    """JSON lines with a question each. Rows named `crash` end the process that reads them."""

    name: str = "letters"
    license: str = "CC0-1.0"
    version: int = 1
    box_sample: None = None

    def files(self, root: Path) -> Sequence[RowFile]:
        return [RowFile(root / "rows.jsonl", "all")]

    def drafts(self, row: Row) -> Iterable[Draft]:
        if row.value["text"] == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        yield Draft(category="general", task="letter", question="Which?", image=ImageFile("a.png"), kind="text",
                    text=row.value["text"])  # fmt: skip


def write_rows(root: Path, texts: Sequence[str]) -> None:
    save(root / "a.png")
    (root / "rows.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))


def test_a_process_that_dies_costs_its_rows_and_is_named(tmp_path: Path) -> None:
    texts = [f"t{n}" for n in range(2 * CHUNK_ROWS + 10)]
    write_rows(tmp_path / "src", [*texts[:CHUNK_ROWS], "crash", *texts[CHUNK_ROWS + 1 :]])
    settings = CurationSettings(tmp_path / "out", workers=1, max_rejected=1.0)
    notes: list[str] = []
    convert_source(Letters(), tmp_path / "src", settings, on_note=notes.append)
    assert open_dataset(tmp_path / "out").samples["answer"].to_pylist() == [
        *texts[:CHUNK_ROWS], *texts[2 * CHUNK_ROWS :],
    ]  # fmt: skip
    assert notes[0].startswith(f"crashed: {CHUNK_ROWS} left out")
    assert f"rows {CHUNK_ROWS} to {2 * CHUNK_ROWS - 1}: signal 11" in notes[0]
    assert json.loads((tmp_path / "out" / CHECKS_NAME).read_text())["codes"] == {"crashed": CHUNK_ROWS}


def test_slices_of_other_options_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "src", ["a", "b"])
    settings = CurationSettings(tmp_path / "out")
    assert prepare_slice(Letters(), tmp_path / "src", settings, 0, 1) == 2
    with pytest.raises(DataError, match="holds parts converted with other options"):
        prepare_slice(Letters(), tmp_path / "src", CurationSettings(tmp_path / "out", max_side=64), 0, 1)
    with pytest.raises(UsageError, match="there is none"):
        prepare_slice(Letters(), tmp_path / "src", settings, 1, 1)


def test_progress_counts_rows_and_nothing_is_left_of_an_empty_source(tmp_path: Path) -> None:
    write_rows(tmp_path / "src", ["x"] * (CHUNK_ROWS + 1))
    seen: list[tuple[int, int]] = []
    convert_source(Letters(), tmp_path / "src", CurationSettings(tmp_path / "out"), lambda *at: seen.append(at))
    assert seen == [(CHUNK_ROWS, CHUNK_ROWS + 1), (CHUNK_ROWS + 1, CHUNK_ROWS + 1)]
    (tmp_path / "src/rows.jsonl").write_text("[]")
    with pytest.raises(DataError, match="0 of 0 records are rejected"):
        convert_source(Letters(), tmp_path / "src", CurationSettings(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_source_that_contains_its_output_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "src", ["a"])
    with pytest.raises(UsageError):
        convert_source(Letters(), tmp_path / "src", CurationSettings(tmp_path / "src/out"))
