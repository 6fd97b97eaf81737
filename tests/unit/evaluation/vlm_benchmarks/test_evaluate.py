"""The benchmarks in their published layouts: scores equal to those computed by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pokevla.cli.main import run
from pokevla.errors import DataError, UsageError
from pokevla.evaluation.vlm_benchmarks.evaluate import BenchmarkName, Settings, evaluate_vlm
from pokevla.evaluation.vlm_benchmarks.judging import Reply
from tests.vlm_benchmarks import cvbench_row, encoded, photograph, write_cvbench, write_refspatial, write_where2place

LEFT, RIGHT = (0, 0, 320, 480), (320, 0, 640, 480)


class Scripted:
    """A model that gives the replies of a list, and keeps what it was asked."""

    kind = "scripted"

    def __init__(self, replies: Sequence[str]) -> None:
        self.labels: list[str] = []
        self.prompts: list[str] = []
        self._replies = list(replies)

    def answer(self, images: Sequence[Image.Image], prompts: Sequence[str], max_new_tokens: int) -> list[Reply]:
        """The next replies."""
        assert all(image.mode == "RGB" for image in images)
        self.prompts += prompts
        replies, self._replies = self._replies[: len(prompts)], self._replies[len(prompts) :]
        return [Reply(text) for text in replies]


def ask(
    tmp_path: Path, benchmark: BenchmarkName, data: Path, replies: Sequence[str], **settings: Any
) -> tuple[dict[str, Any], Scripted]:
    (tmp_path / "model").mkdir(exist_ok=True)
    model = Scripted(replies)
    chosen = Settings(benchmark, tmp_path / "model", data, batch_size=2, **settings)
    return evaluate_vlm(chosen, tmp_path / "out", respondent=model), model


def answers(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]


def test_where2place_as_computed_by_hand(tmp_path: Path) -> None:
    data = write_where2place(tmp_path / "data", [LEFT, LEFT, RIGHT, LEFT])
    points = ["[(0.2, 0.5)]", "[(0.2, 0.5), (0.9, 0.5)]", "(0, 0.2, 0.05, 0.21)", "[0.2, 0.5]"]
    boxes = ["(0.1, 0.1, 0.2, 0.2)", "(0.4, 0.1, 0.6, 0.2)", "(0.1, 0.1, 0.2, 0.2)", "(100, 100)"]
    summary, model = ask(tmp_path, "where2place", data, [*points, *boxes])

    point, bbox = summary["parts"]["point"], summary["parts"]["bbox"]
    assert (point["questions"], point["evaluated"]) == (4, 3), "the third raises in the official scorer"
    assert point["official"]["score"] == pytest.approx((1 + 0.5 + 0) / 3, abs=0.01)
    assert point["strict"]["score"] == pytest.approx((1 + 0.5 + 0 + 0) / 4, abs=0.01)
    assert point["failures"] == {"skipped: TypeError": 1, "nothing read": 1}
    assert point["failure_rate"] == 0.5
    assert (point["distinct_answers"], point["readable"]) == (2, 2)
    assert np.array(point["positions"]).tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [2, 0, 0, 1], [0, 0, 0, 0]]
    assert bbox["official"]["score"] == pytest.approx((1 + 0.5 + 0 + 1) / 4, abs=0.01)
    assert bbox["read_as_pixels"] == 1
    assert bbox["mean_box_area"] == pytest.approx((0.01 + 0.02 + 0.01) / 3, abs=1e-3)
    assert point["chance"] == pytest.approx(0.5, abs=0.01)
    assert point["best_constant"] == pytest.approx(0.75, abs=0.01), "three of four masks are on the left"
    assert point["best_constant_answer"][0] < 0.5
    assert point["by_group"]["category"]["unseen"]["questions"] == 2

    assert all("<image>" not in prompt and prompt.startswith("Find free space") for prompt in model.prompts)
    assert "list of tuples" in model.prompts[0]
    rows = answers(tmp_path)
    assert [row["official"] is None for row in rows] == [False, False, True, False, *[False] * 4]
    assert rows[0]["points"] == [[pytest.approx(0.2, abs=2e-3), pytest.approx(0.5, abs=2e-3)]]
    assert rows[0]["question"] == "Find free space number 0."
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| paper: PokeVLM | 0.163 | 0.194 |" in table
    assert "RefSpatial" not in table.split("\n\n")[2]
    with Image.open(tmp_path / "out" / "pictures" / "point.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
        assert (pixels == (40, 215, 80)).all(axis=1).sum() > 100, "green points"
        assert (pixels == (225, 40, 40)).all(axis=1).sum() > 100, "the outline of red regions"
    assert "point: 4 questions, the published set has 100" in " ".join(summary["labels"])


@pytest.mark.parametrize("parquet", [False, True])
def test_refspatial_is_the_same_in_both_layouts(tmp_path: Path, parquet: bool) -> None:
    data = write_refspatial(tmp_path / "data", [LEFT, RIGHT, LEFT], parquet=parquet)
    replies = ["[(0.2, 0.5)]", "(0.5, 0.2, 0.4, 0.3)", "(100, 100), (0.9, 0.9)"]
    summary, model = ask(tmp_path, "refspatial", data, replies)
    part = summary["parts"]["location"]
    assert (part["questions"], part["evaluated"], part["published_questions"]) == (3, 2, 100)
    assert part["official"]["score"] == pytest.approx((1 + 0.5) / 2)
    assert part["strict"]["score"] == pytest.approx((1 + 0 + 0.5) / 3)
    assert part["chance"] == pytest.approx(0.5)
    assert model.prompts[0].startswith("Point at cup 0. Your answer should be formatted")


def test_other_families_are_asked_and_read_in_their_way(tmp_path: Path) -> None:
    data = write_refspatial(tmp_path / "data", [LEFT, RIGHT], parquet=False)
    replies = ['<points x1="10.0" y1="50.0">', '<points x1="10.0" y1="50.0">']
    summary, model = ask(tmp_path, "refspatial", data, replies, family="molmo")
    assert summary["parts"]["location"]["official"]["score"] == 0.5
    assert model.prompts[0] == "Locate several points of the cup 0."
    with pytest.raises(UsageError, match="no family 'gpt'"):
        evaluate_vlm(Settings("refspatial", tmp_path / "model", data, family="gpt"), tmp_path / "other")


@pytest.mark.parametrize("parquet", [False, True])
def test_cvbench_weighs_its_sources(tmp_path: Path, parquet: bool) -> None:
    yes_no = ("left", "right")
    rows = [
        cvbench_row(0, "ADE20K", yes_no, "A"),
        cvbench_row(1, "ADE20K", ("1", "2", "3", "4"), "B"),
        cvbench_row(2, "COCO", yes_no, "B"),
        cvbench_row(3, "Omni3D", yes_no, "A"),
        cvbench_row(4, "Omni3D", yes_no, "B"),
        cvbench_row(5, "Omni3D", yes_no, "A"),
    ]
    data = write_cvbench(tmp_path / "data", rows, parquet=parquet)
    summary, model = ask(tmp_path, "cvbench", data, ["(A)", "A", "Both A and B", "A.", "A", "**A**"])
    part = summary["parts"]["cvbench"]
    # ADE20K: 1 of 2; COCO: 1 of 1, which is a false hit; Omni3D: 1 of 3, because of the asterisks
    assert part["official"]["score"] == pytest.approx(0.25 * 0.5 + 0.25 * 1 + 0.5 / 3)
    assert part["strict"]["score"] == pytest.approx(0.25 * 0.5 + 0.25 * 0 + 0.5 * 2 / 3)
    assert part["micro"] == pytest.approx(3 / 6)
    assert part["chance"] == pytest.approx(0.25 * (1 / 2 + 1 / 4) / 2 + 0.25 / 2 + 0.5 / 2)
    assert part["best_constant_answer"] == "B"
    assert part["best_constant"] == pytest.approx(0.25 * 0.5 + 0.25 * 1 + 0.5 / 3)
    assert part["letters"] == {"A": 4, "B": 1, "C": 0, "D": 0}
    assert part["expected_letters"] == {"A": 3, "B": 3, "C": 0, "D": 0}
    assert part["no_letter"] == 1
    assert model.prompts[0].endswith("\nAnswer with the option's letter from the given choices directly.")
    assert part["by_group"]["task"]["Depth"]["questions"] == 3


def test_half_of_cvbench_has_no_official_score(tmp_path: Path) -> None:
    data = write_cvbench(tmp_path / "data", [cvbench_row(0, "COCO", ("1", "2"), "A")], parquet=False)
    (data / "test_3d.jsonl").unlink()
    summary, _ = ask(tmp_path, "cvbench", data, ["A"])
    assert summary["parts"]["cvbench"]["official"] is None
    assert summary["parts"]["cvbench"]["micro"] == 1.0
    assert "no official score" in " ".join(summary["labels"])


def test_some_questions_in_our_wording(tmp_path: Path) -> None:
    data = write_where2place(tmp_path / "data", [LEFT, LEFT, LEFT, LEFT, LEFT])
    settings: dict[str, Any] = {"questions": 3, "parts": ["bbox"], "wording": "pokevla"}
    summary, model = ask(tmp_path, "where2place", data, ["(0.1, 0.1, 0.2, 0.2)"] * 3, **settings)
    request = "Reply with one box (x1, y1, x2, y2) scaled to 0-1."
    assert model.prompts == [f"Find free space number {number}. {request}" for number in (0, 2, 4)]
    assert list(summary["parts"]) == ["bbox"]
    assert "not in the published ones" in summary["labels"][0]


def test_damaged_data_is_named(tmp_path: Path) -> None:
    data = write_where2place(tmp_path / "data", [LEFT, LEFT])
    (data / "images" / "01.jpg").write_bytes(encoded(photograph(), "JPEG")[:2000])
    with pytest.raises(DataError, match=r"01\.jpg: not a readable picture"):
        ask(tmp_path, "where2place", data, ["", "", "", ""])
    assert not (tmp_path / "out").exists()
    (data / "point_questions.jsonl").write_text('{"question_id": 0, "image": "../../secret.jpg", "text": "Where?"}\n')
    with pytest.raises(DataError, match="leads out of the data"):
        ask(tmp_path, "where2place", data, [""])
    (data / "point_questions.jsonl").write_text('{"question_id": 0}\n{"question')
    with pytest.raises(DataError, match=r"point_questions\.jsonl:2 is damaged"):
        ask(tmp_path, "where2place", data, [""])


def test_benchmarks_of_one_model_are_a_row_of_table_iii(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(tmp_path, "refspatial", write_refspatial(tmp_path / "r", [LEFT, RIGHT], parquet=False), ["[(0.2, 0.5)]"] * 2)
    folders = [str((tmp_path / "out").rename(tmp_path / "first"))]
    ask(tmp_path, "where2place", write_where2place(tmp_path / "w", [LEFT]), ["[(0.9, 0.5)]"] * 2)
    folders.append(str(tmp_path / "out"))
    assert run(["eval", "tables", *folders]) == 0
    text = capsys.readouterr().out
    assert "| paper: Prismatic-VLM, before | 0.075 | 0.095 | 0.033 |" in text
    assert "| ours: model | 0.000 (0.000 to 0.000) | 0.000 (0.000 to 0.000) | 0.500 (0.000 to 1.000) |" in text
    assert "- refspatial: location: 2 questions, the published set has 100" in text
    assert run(["eval", "tables", *folders, "--out", str(tmp_path / "tables")]) == 0
    assert (tmp_path / "tables" / "table_iii.md").read_text() == text[: text.rindex("\n")]
    assert run(["eval", "tables", folders[0], str(tmp_path / "w")]) == 2
    assert "is not a VLM benchmark, other folders are" in capsys.readouterr().err


def test_another_data_set_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for benchmark in ("where2place", "refspatial", "cvbench"):
        with pytest.raises(DataError, match=r"Download .* from the Hugging Face hub"):
            evaluate_vlm(Settings(benchmark, tmp_path / "none", tmp_path / "data"), tmp_path / "out")
    (tmp_path / "data.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    with pytest.raises(DataError, match=r"data\.zip is an archive"):
        evaluate_vlm(Settings("cvbench", tmp_path / "none", tmp_path / "data.zip"), tmp_path / "out")
