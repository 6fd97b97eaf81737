"""HOVA-500K and MolmoAct."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.unit.data.curation.published import convert, png_bytes, reasons, save, write_json

EGO4D, EPIC = "annotations/train/ego4d.json", "annotations/train/epic100.json"


def heat_map(path: Path, x: int, y: int, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    values = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50)
    Image.fromarray(values.astype(np.uint8)).save(path)


def ego4d(**changes: Any) -> dict[str, Any]:
    return {"img_path": "clip/000120", "frame_number": 120, "points": [[16, 24]], "width": 64, "height": 48,
            "action": "open", "noun": "drawer_(drawer,_cabinet_drawer)", "gt_path": "clip/000120.png",
            **changes}  # fmt: skip


@pytest.fixture
def hova(tmp_path: Path) -> Path:
    root = tmp_path / "src"
    save(root / "Ego4D/frames/clip/000120.jpg")
    save(root / "epic-100/EPIC-KITCHENS_frames/P99/P99_101/frame_77.jpg")
    heat_map(root / "Ego4D/GT_gaussian/clip/000120.png", 16, 24)
    return root


def test_ego4d_labels_become_points_and_faults_have_their_codes(hova: Path, tmp_path: Path) -> None:
    heat_map(hova / "Ego4D/GT_gaussian_sp/clip/far.png", 60, 4)
    faults = {
        "coord_range": ego4d(points=[[70, 24]]),
        "size_mismatch": ego4d(width=1408, height=1056),
        "coord_nan": ego4d(points=[[float("nan"), 24]]),
        "coord_scale_mismatch": ego4d(points=[[0.25, 0.5]]),
        "verb_no_contact": ego4d(action="look_at"),
        "noun_person": ego4d(noun="left_hand"),
        "point_off_mask": ego4d(gt_path="clip/far.png"),
        "image_missing": ego4d(img_path="clip/000999"),
        "text_empty": ego4d(noun=" "),
        "row_layout": ego4d(points="16, 24"),
    }
    rows = [*faults.values(), ego4d(), ego4d(gt_path="clip/absent.png"), ego4d(points=[[10**400, 1]])]
    write_json(hova / EGO4D, rows)
    made = convert("hova-ego4d", hova, tmp_path / "out")
    expected = {**dict(enumerate(faults)), len(rows) - 1: "coord_nan"}
    assert reasons(made, EGO4D) == expected
    assert [r["answer"] for r in made["rows"]] == ["[(0.250, 0.500)]"] * 2
    question = made["rows"][0]["question"]
    assert " drawer" in question
    assert question.endswith(" Reply with a list of (x, y) pairs scaled to 0-1.")
    assert made["files"][EGO4D]["flagged"] == {"heat_map_missing": 1}


def test_epic_nouns_with_a_class_are_put_in_order(hova: Path, tmp_path: Path) -> None:
    row = {"img_path": "P99/P99_101/frame_77.jpg", "narration_id": "P99_101_12", "points": [[32, 12]],
           "verb": "turn-on", "noun": "board:chopping", "gt_path": "P99_101_12.png"}  # fmt: skip
    write_json(hova / EPIC, [row])
    made = convert("hova-epic100", hova, tmp_path / "out")
    assert "chopping board" in made["rows"][0]["question"]
    assert made["rows"][0]["target_points"] == [[0.5, 0.25]]


def trace_row(annotation: str | None, answer: str | None = None, question: str = "Put the lid on.") -> dict[str, Any]:
    answer = answer if answer is not None else f"The path is {annotation}."
    return {"image": {"bytes": png_bytes(), "path": None}, "annotation": annotation,
            "conversations": {"from": ["human", "gpt"], "value": [question, answer]}}  # fmt: skip


def test_traces_and_their_faults(tmp_path: Path) -> None:
    good = "[[51, 102], [77, 102], [102, 128]]"
    faults = {
        "trace_missing": trace_row(None, "none"),
        "trace_mismatch": trace_row(good, "The path is [[1, 2], [3, 4]]."),
        "points_too_many": trace_row("[[1, 1], [20, 20], [40, 40], [60, 60], [80, 80], [90, 90]]"),
        "coord_scale_mismatch": trace_row("[[100, 100], [300, 120]]"),
        "coord_range": trace_row("[[-1, 100], [30, 120]]"),
        "trace_short": trace_row("[[100, 100], [100, 100]]"),
        "trace_jump": trace_row("[[0, 100], [200, 100], [210, 100]]"),
        "text_empty": trace_row(good, question="<image>"),
        "answer_format": trace_row("hello"),
        "image_corrupt": {**trace_row(good), "image": {"bytes": b"no image", "path": None}},
    }
    rows = [*faults.values(), trace_row("[[100, 100], [102, 101]]"), trace_row("[[10, 10], [90, 10], [95, 20]]"),
            trace_row(good)]  # fmt: skip
    (tmp_path / "src").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "src/train-00000.parquet", row_group_size=4)
    made = convert("molmoact", tmp_path / "src", tmp_path / "out")
    expected = {**dict(enumerate(faults)), len(rows) - 3: "trace_short", len(rows) - 2: "trace_jump"}
    assert reasons(made, "train-00000.parquet") == expected
    (record,) = made["rows"]
    assert (record["category"], record["answer_kind"]) == ("affordance", "trace")
    assert record["answer"] == "[(0.200, 0.400), (0.302, 0.400), (0.400, 0.502)]"
