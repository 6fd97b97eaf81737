"""The folder of a benchmark: summary, a line for every question, pictures, and the table beside the paper's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pokevla.evaluation.folder import ANSWERS, PICTURES, SUMMARY
from pokevla.evaluation.result_folder import ResultFolder
from pokevla.evaluation.vlm_benchmarks.judging import Judged
from pokevla.evaluation.vlm_benchmarks.paper_table import as_markdown
from pokevla.files.texts import write_json, write_text
from pokevla.files.writing import atomic_folder, atomic_path
from pokevla.policy.pictures import strip

TABLE = "table.md"
FOLDER = ResultFolder("vlm_benchmark", "result of a VLM benchmark", (SUMMARY, ANSWERS, TABLE, f"{PICTURES}/*.png"))
COLUMNS = 3


def write_results(
    out: Path,
    summary: Mapping[str, Any],
    judged: Sequence[Judged],
    pictures: Mapping[str, Sequence[np.ndarray]],
    *,
    overwrite: bool,
) -> None:
    """Write the folder, complete or not at all. `pictures`: part -> pictures of questions."""
    with atomic_folder(out, replaces=FOLDER.refuse_other if overwrite else None) as folder:
        write_json(folder / SUMMARY, summary)
        write_text(folder / ANSWERS, "".join(json.dumps(asdict(one)) + "\n" for one in judged))
        write_text(folder / TABLE, as_markdown([summary]))
        for part, shown in pictures.items():
            if shown:
                with atomic_path(folder / PICTURES / f"{part}.png") as temporary:
                    Image.fromarray(strip(list(shown), columns=COLUMNS)).save(temporary, format="png", optimize=True)
