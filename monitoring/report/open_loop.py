"""The section about an open-loop evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monitoring.report.media import data_uri
from pokevla.evaluation.open_loop.results import PLOTS, verdict


def open_loop_section(folder: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What `open_loop.html.j2` shows of `summary.json`, and the plots of the folder."""
    paths = sorted((folder / PLOTS).glob("episode-*.png"))
    pictures = [{"title": path.stem.replace("-", " "), "uri": data_uri(path)} for path in paths]
    names = {"run": Path(summary["run"]).name, "dataset": Path(summary["dataset"]).name}
    return {**summary, **names, "verdict": verdict(summary), "pictures": pictures}
