"""The folder of a benchmark: summary, a line for every question, pictures, and the table beside the paper's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pokevla.errors import DataError
from pokevla.evaluation.vlm_benchmarks.judging import Judged
from pokevla.evaluation.vlm_benchmarks.paper_table import as_markdown
from pokevla.files.ownership import refuse_foreign
from pokevla.files.texts import read_json, write_json, write_text
from pokevla.files.writing import atomic_folder, atomic_path, refuse_second_writer
from pokevla.policy.pictures import strip

KIND = "vlm_benchmark"
SUMMARY, ANSWERS, TABLE, PICTURES = "summary.json", "answers.jsonl", "table.md", "pictures"
_OURS = (SUMMARY, ANSWERS, TABLE, f"{PICTURES}/*.png")
COLUMNS = 3


def refuse_results(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, before any work.

    Raises:
        DataError: it exists and is something else, or `overwrite` is False; or another process writes it.
    """
    refuse_second_writer(out)
    if not out.exists():
        return
    if not overwrite:
        raise DataError(f"{out} already exists.", "Choose another folder with --out, or add --overwrite.")
    _refuse_other(out)


def _refuse_other(out: Path) -> None:
    if read_summary(out) is None:
        raise DataError(f"{out} is not the result of a VLM benchmark: it is not replaced.", "Choose another folder.")
    refuse_foreign(out, "result of a VLM benchmark", _OURS)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """`summary.json` of a benchmark's folder; None if it is none. DataError if the file is damaged."""
    path = folder / SUMMARY
    content = read_json(path) if path.is_file() else None
    return content if isinstance(content, dict) and content.get("kind") == KIND else None


def write_results(
    out: Path,
    summary: Mapping[str, Any],
    judged: Sequence[Judged],
    pictures: Mapping[str, Sequence[np.ndarray]],
    *,
    overwrite: bool,
) -> None:
    """Write the folder, complete or not at all. `pictures`: part -> pictures of questions."""
    with atomic_folder(out, replaces=_refuse_other if overwrite else None) as folder:
        write_json(folder / SUMMARY, summary)
        write_text(folder / ANSWERS, "".join(json.dumps(asdict(one)) + "\n" for one in judged))
        write_text(folder / TABLE, as_markdown([summary]))
        for part, shown in pictures.items():
            if shown:
                with atomic_path(folder / PICTURES / f"{part}.png") as temporary:
                    Image.fromarray(strip(list(shown), columns=COLUMNS)).save(temporary, format="png", optimize=True)
