"""The section about a benchmark of a VLM."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from monitoring.report.page import write_report


def test_it_shows_scores_beside_the_papers_and_the_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    (folder / "pictures").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "pictures/point.png")
    part = {
        "column": "Where2Place point", "questions": 100, "official": {"score": 0.1234, "low": 0.08, "high": 0.17},
        "strict": {"score": 0.0987, "low": 0.05, "high": 0.15}, "chance": 0.021, "failure_rate": 0.125,
        "distinct_answers": 31, "readable": 87,
    }  # fmt: skip
    empty = {**part, "column": "Where2Place bbox", "official": None, "chance": None}
    summary = {
        "kind": "vlm_benchmark", "benchmark": "where2place", "model": "<mine>", "model_kind": "PokeVLM",
        "labels": ["3 replies were cut off."], "parts": {"point": part, "bbox": empty},
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary))
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "&lt;mine&gt; (PokeVLM)" in page
    for text in ("0.123</td>", "[0.080, 0.170]", "0.099</td>", "12.5 %", "31 of 87", "0.163</td>", "0.194</td>"):
        assert text in page
    assert "3 replies were cut off." in page
    assert page.count("data:image/png;base64") == 1
