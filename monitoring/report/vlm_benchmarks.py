"""The section about a benchmark of a vision-language model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monitoring.report.media import data_uri
from pokevla.evaluation.folder import PICTURES
from pokevla.evaluation.vlm_benchmarks.paper_table import COLUMNS, PAPER

TITLES = {"where2place": "Where2Place", "refspatial": "RefSpatial-Bench", "cvbench": "CV-Bench"}


def vlm_benchmark_section(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What `vlm_benchmarks.html.j2` shows of `summary.json`, and the pictures of the folder."""
    pictures = [
        {"title": f"{name}: the right region in red, the reply in green", "uri": data_uri(path)}
        for name in summary["parts"]
        if (path := folder / PICTURES / f"{name}.png").is_file()
    ]
    rows = [
        {**part, "name": name, "paper": {row: scores[COLUMNS.index(part["column"])] for row, scores in PAPER.items()}}
        for name, part in summary["parts"].items()
    ]
    return {**summary, "title": TITLES[summary["benchmark"]], "rows": rows, "pictures": pictures, "paper": list(PAPER)}
