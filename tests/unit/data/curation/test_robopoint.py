from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pokevla.cli.main import run
from pokevla.data.curation.box_order import decide_order
from pokevla.data.curation.row_files import CHUNK_ROWS
from tests.unit.data.curation.published import convert, reasons, save, talk, write_json

LIST = "robopoint_1432k.json"
POINTS = "Answer with a list of tuples [(x1, y1), ...] between 0 and 1."
BOXES = "Find all cups. Your answer is a list of tuples [(x, y, w, h)]."


def row(name: str, *texts: str, image: str | None = None) -> dict[str, Any]:
    return {"id": name, "image": image or f"{name}.png", "conversations": talk(*texts)}


def point_row(number: int, answer: str, part: str = "region_ref") -> dict[str, Any]:
    return row(f"{part}/{number}_cam01", f"Find free space. {POINTS}", answer, image=f"{part}/a.png")


def box_rows(count: int, sizes: bool) -> list[dict[str, Any]]:
    """Detection rows with small boxes all over the image, as corner and size or as two corners."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(count):
        x, y, w, h = (*rng.uniform(0.0, 0.8, 2), *rng.uniform(0.05, 0.2, 2))
        last = (w, h) if sizes else (x + w, y + h)
        answer = f"[({x:.3f}, {y:.3f}, {last[0]:.3f}, {last[1]:.3f})]"
        rows.append(row(f"{number}", BOXES, answer, image="coco/train2017/1.jpg"))
    return rows


def write(root: Path, rows: list[dict[str, Any]]) -> None:
    save(root / "region_ref/a.png")
    save(root / "images/object_ref/a.png", seed=1)  # where the archives unpack to
    save(root / "coco/train2017/1.jpg", seed=2)
    write_json(root / LIST, rows)


def test_points_and_faults_of_points(tmp_path: Path) -> None:
    answers = {
        "[(0.231, 0.574), (0.246, 0.602)]": None,
        "[(1.0, 1.003)]": None,  # clamped
        "[(0.5, 0.5)]": None,
        "[(0.5, 1.2)]": "coord_range",
        "[(320, 240)]": "coord_scale_mismatch",
        "[(0.5, 1e400)]": "coord_nan",
        "[(nan, 0.5)]": "coord_nan",
        "[(0.2, 0.3), (0.2, 0.3)]": "points_identical",
        "near the cup": "answer_format",
        "[(0.2, 0.3, 0.4)]": "answer_format",
        "[" + ", ".join("(0.123, 0.456)" for _ in range(80)) + "]": "text_too_long",
        "[" + ", ".join(f"(.{n}, .2)" for n in range(10, 80)) + "]": "points_too_many",
    }
    rows = [point_row(number, answer) for number, answer in enumerate(answers)]
    rows += [row("cup", "Is it red?", "Yes", image="coco/train2017/1.jpg"),
             {"id": "text", "conversations": talk("Hi", "Hello", image=False)}]  # fmt: skip
    write(tmp_path / "src", rows)
    made = convert("robopoint", tmp_path / "src", tmp_path / "out")
    expected = {number: code for number, code in enumerate(answers.values()) if code}
    assert reasons(made, LIST) == {**expected, len(answers): "other_set", len(answers) + 1: "other_set"}
    assert [r["answer"] for r in made["rows"]] == [
        "[(0.231, 0.574), (0.246, 0.602)]", "[(0.999, 0.999)]", "[(0.500, 0.500)]",
    ]  # fmt: skip
    assert made["rows"][0]["question"] == f"Find free space. {POINTS}"
    assert made["files"][LIST]["flagged"] == {"coord_clamped": 1}
    assert made["rejected"] == len(expected)  # another set's rows are no fault


@pytest.mark.parametrize("sizes", [True, False])
def test_the_order_of_boxes_is_decided_once_for_a_file(tmp_path: Path, sizes: bool) -> None:
    rows = [*box_rows(60, sizes), point_row(0, "[(0.5, 0.5)]")]
    write(tmp_path / "src", rows)
    made = convert("robopoint", tmp_path / "src", tmp_path / "out")
    assert made["box_order"][LIST]["order"] == ("xywh" if sizes else "xyxy")
    assert made["info"]["box_order"] == made["box_order"]
    assert (made["codes"], len(made["rows"])) == ({}, 61)
    other = json.loads((tmp_path / "src" / LIST).read_text())[0]["conversations"][1]["value"]
    x, y, c, d = (float(n) for n in other.strip("[()]").split(","))
    box = made["rows"][0]["target_boxes"][0]
    assert box == pytest.approx([x, y, *((x + c, y + d) if sizes else (c, d))], abs=1e-3)
    if sizes:  # the question no longer asks for sizes
        assert made["rows"][0]["question"] == "Find all cups. Reply with one box (x1, y1, x2, y2) scaled to 0-1."


def test_boxes_that_do_not_tell_their_order_are_rejected_until_the_user_says(tmp_path: Path) -> None:
    rows = [row(str(n), BOXES, "[(0.1, 0.1, 0.3, 0.3)]", image="coco/train2017/1.jpg") for n in range(3)]
    write(tmp_path / "src", [*rows, point_row(0, "[(0.5, 0.5)]")])
    made = convert("robopoint", tmp_path / "src", tmp_path / "out")
    assert made["codes"] == {"box_order_suspect": 3}
    assert "box_order_suspect" in made["alarms"]
    made = convert("robopoint", tmp_path / "src", tmp_path / "out2", "--box-order", "xywh")
    assert made["rows"][0]["target_boxes"] == [[0.1, 0.1, 0.4, 0.4]]
    assert made["box_order"][LIST]["chosen_by"] == "user"


def test_faults_of_boxes(tmp_path: Path) -> None:
    answers = {"[(0.9, 0.1, 0.2, 0.9)]": "coord_range", "[(0.5, 0.5, -0.2, 0.1)]": "box_inverted",
               "[(0.5, 0.5, 0.001, 0.001)]": "box_empty", "[(0, 0, 1, 1)]": "box_whole_image"}  # fmt: skip
    bad = [row(answer, BOXES, answer, image="coco/train2017/1.jpg") for answer in answers]
    write(tmp_path / "src", [*bad, *box_rows(400, sizes=True)])
    made = convert("robopoint", tmp_path / "src", tmp_path / "out")
    assert reasons(made, LIST) == dict(enumerate(answers.values()))
    same = [row(str(n), BOXES, "[(0.5, 0.1, 0.2, 0.2)]", image="coco/train2017/1.jpg") for n in range(60)]
    write(tmp_path / "src", [*same, *box_rows(60, sizes=True)])
    assert "boxes_equal" in convert("robopoint", tmp_path / "src", tmp_path / "out2")["alarms"]


def test_mixed_orders_are_undecided() -> None:
    corners = [(0.1 * n, 0.1 * n, 0.1 * n + 0.3, 0.1 * n + 0.3) for n in range(7)]
    sizes = [(0.1 * n, 0.1 * n, 0.2, 0.2) for n in range(8)]
    assert decide_order(corners * 10).order == "xyxy"
    assert decide_order(sizes * 10).order == "xywh"
    assert decide_order((corners + sizes) * 10).order is None
    assert decide_order([]).order is None


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three chunks of rows."""
    root = tmp_path_factory.mktemp("large")
    answers = [f"[(0.{n % 1000:03d}, 0.5)]" for n in range(2 * CHUNK_ROWS + 30)]
    write(root, [point_row(n, a, "object_ref" if n % 3 else "region_ref") for n, a in enumerate(answers)])
    return root


def test_the_bytes_do_not_depend_on_processes_slices_and_kills(large: Path, tmp_path: Path) -> None:
    convert("robopoint", large, tmp_path / "one")
    expected = contents(tmp_path / "one")
    words = ["data", "convert", "robopoint", str(large)]
    for index in (1, 0):
        assert run([*words, str(tmp_path / "sliced"), "--slice", f"{index}/2", "--workers", "0"]) == 0
    convert("robopoint", large, tmp_path / "sliced", "--workers", "2")
    assert contents(tmp_path / "sliced") == expected
    command = [sys.executable, "-m", "pokevla.cli.main", *words, str(tmp_path / "killed"), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        part = tmp_path / ".unfinished-killed/000000/part.json"
        while not part.exists() and process.poll() is None:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    convert("robopoint", large, tmp_path / "killed")
    assert contents(tmp_path / "killed") == expected
    assert not list(tmp_path.glob(".unfinished*"))


def test_a_list_that_is_cut_off_keeps_its_rows_and_goes_on_when_it_is_whole(
    large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert("robopoint", large, tmp_path / "whole")
    text = (large / LIST).read_bytes()
    source = tmp_path / "src"
    source.mkdir()
    for folder in ("region_ref", "images"):
        (source / folder).symlink_to(large / folder)
    cut = text.rindex(b'{"id"') + 40
    (source / LIST).write_bytes(text[:cut])
    convert("robopoint", source, tmp_path / "out", code=3)
    rows = 2 * CHUNK_ROWS + 29
    error = capsys.readouterr().err
    assert f"is damaged at byte {cut - 40}: the file ends within the row that begins there." in error
    assert f"The {rows} rows before it are converted and kept." in error
    kept = tmp_path / ".unfinished-out/000000/part.json"
    before = kept.stat().st_mtime_ns
    made = convert("robopoint", source, tmp_path / "part", "--allow-damaged")
    assert len(made["rows"]) == rows
    assert made["info"]["sources"][0]["damaged_at"] == cut - 40
    (source / LIST).write_bytes(text)
    assert run(["data", "convert", "robopoint", str(source), str(tmp_path / "out"), "--slice", "0/1"]) == 0
    assert kept.stat().st_mtime_ns == before  # the first chunk was not made again
    convert("robopoint", source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_images_that_are_missing_cost_their_rows_and_too_many_stop_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [point_row(n, "[(0.5, 0.5)]", "object_ref" if n % 2 else "region_ref") for n in range(10)]
    write(tmp_path / "src", rows)
    (tmp_path / "src/images/object_ref/a.png").rename(tmp_path / "a.png")
    convert("robopoint", tmp_path / "src", tmp_path / "out", "--max-rejected", "0.2", code=3)
    assert "5 of 10 records are rejected (5 image_missing)" in capsys.readouterr().err
    (tmp_path / "a.png").rename(tmp_path / "src/images/object_ref/a.png")
    made = convert("robopoint", tmp_path / "src", tmp_path / "out", "--max-rejected", "0.2")
    assert (made["codes"], len(made["rows"])) == ({}, 10)
