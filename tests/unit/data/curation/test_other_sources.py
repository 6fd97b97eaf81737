"""RoboRefIt, RoboSpatial, Cosmos-Reason1, and a source of the user's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.recorded.episodes import write_video
from pokevla.data.curation import rules
from pokevla.data.curation.sources.roborefit import ROBOREFIT
from pokevla.errors import DataError
from tests.unit.data.curation.published import convert, reasons, save, write_json

TRAIN = "final_dataset/train/roborefit_train.json"


def mask(path: Path, box: tuple[int, int, int, int] | None, hole: int = 0) -> None:
    values = np.zeros((48, 64), np.uint8)
    if box is not None:
        x1, y1, x2, y2 = box
        values[y1:y2, x1:x2] = 1
        values[y1 + hole : y2 - hole, x1 + hole : x2 - hole] = 0 if hole else 1
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def refit(**changes: Any) -> dict[str, Any]:
    return {"num": 31, "text": "the green sponge", "bbox": [16, 12, 32, 24], "scene": "table",
            "rgb_path": "final_dataset\\train\\image\\0.png", "depth_path": "final_dataset\\train\\depth\\0.png",
            "mask_path": "final_dataset\\train\\mask\\0\\2.png", **changes}  # fmt: skip


def test_roborefit_boxes_and_points_agree_with_masks(tmp_path: Path) -> None:
    top = tmp_path / "src/final_dataset/train"
    save(top / "image/0.png")
    mask(top / "mask/0/2.png", (16, 12, 32, 24))
    mask(top / "mask/0/ring.png", (8, 8, 56, 40), hole=6)
    mask(top / "mask/0/tiny.png", (0, 0, 5, 5))
    path = "final_dataset/train/mask/0/"
    faults = {
        "mask_box_iou": refit(bbox=[40, 30, 60, 46]),
        "mask_empty": refit(mask_path=f"{path}tiny.png"),
        "mask_missing": refit(mask_path=f"{path}absent.png"),
        "box_inverted": refit(bbox=[32, 12, 16, 24]),
        "coord_range": refit(bbox=[16, 12, 80, 24]),
        "row_layout": refit(bbox=[1, 2, 3]),
        "text_empty": refit(text=""),
    }
    rows = [*faults.values(), refit(), refit(mask_path=f"{path}ring.png", bbox=[8, 8, 56, 40])]
    write_json(tmp_path / "src" / TRAIN, rows)
    write_json(tmp_path / "src/final_dataset/testA/roborefit_testA.json", [refit()])  # never read
    made = convert("roborefit", tmp_path / "src", tmp_path / "out")
    assert reasons(made, TRAIN) == dict(enumerate(faults))
    assert list(made["files"]) == [TRAIN]
    box, point, _, ring = made["rows"]
    assert box["answer"] == "[(0.250, 0.250, 0.500, 0.500)]"
    assert all(0.25 < x < 0.5 and 0.25 < y < 0.5 for x, y in point["target_points"])
    for x, y in ring["target_points"]:
        inside = 8 <= x * 64 < 56 and 8 <= y * 48 < 40 and not (14 <= x * 64 < 50 and 14 <= y * 48 < 34)
        assert inside, (x, y)  # on the ring, not at its centroid


def picture_bytes(path: Path) -> dict[str, Any]:
    return {"bytes": path.read_bytes(), "path": None}


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("num", pa.int64()), ("image", picture), ("mask", picture), ("text", pa.string()),
               ("bbox", pa.list_(pa.int64())), ("scene", pa.string())]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(columns)), path)


def test_roborefit_as_parquet_gives_the_same_records_and_codes_as_its_folders(tmp_path: Path) -> None:
    top = tmp_path / "zip/final_dataset/train"
    save(top / "image/0.png")
    mask(top / "mask/0/2.png", (16, 12, 32, 24))
    mask(top / "mask/0/tiny.png", (0, 0, 5, 5))
    tiny = "final_dataset/train/mask/0/tiny.png"
    bad = [refit(bbox=[40, 30, 60, 46]), refit(mask_path=tiny), refit(bbox=[32, 12, 16, 24]), refit(text="")]
    rows = [*bad, refit(bbox=[16, 12, 80, 24]), refit(bbox=[1, 2, 3]), refit(), refit(num=32, text="the cup")]
    write_json(tmp_path / "zip" / TRAIN, rows)
    embedded = [
        {
            **{name: row[name] for name in ("num", "text", "bbox", "scene")},
            "image": picture_bytes(top / "image/0.png"),
            "mask": picture_bytes(top / "mask/0" / row["mask_path"].replace("\\", "/").rsplit("/", 1)[1]),
        }
        for row in rows
    ]
    hub = "data/train-00000-of-00001.parquet"
    write_parquet(tmp_path / "hub" / hub, embedded)
    write_parquet(tmp_path / "hub/data/testA-00000-of-00001.parquet", embedded)  # never read
    folders = convert("roborefit", tmp_path / "zip", tmp_path / "a")
    parquet = convert("roborefit", tmp_path / "hub", tmp_path / "b")
    assert reasons(parquet, hub) == reasons(folders, TRAIN)
    assert list(parquet["files"]) == [hub]
    told = ("task", "question", "answer", "target_points", "target_boxes", "width", "height")
    assert [[row[name] for name in told] for row in parquet["rows"]] == [
        [row[name] for name in told] for row in folders["rows"]
    ]
    assert len(parquet["rows"]) == 4


def test_roborefit_as_parquet_reports_what_its_columns_lack(tmp_path: Path) -> None:
    save(tmp_path / "0.png")
    mask(tmp_path / "m.png", (16, 12, 32, 24))
    good = {"num": 1, "text": "the cup", "bbox": [16, 12, 32, 24], "scene": None,
            "image": picture_bytes(tmp_path / "0.png"), "mask": picture_bytes(tmp_path / "m.png")}  # fmt: skip
    cut = {"bytes": good["image"]["bytes"][:300], "path": "0.png"}
    faults = {"image_missing": {**good, "image": None}, "mask_missing": {**good, "mask": {"bytes": b"", "path": None}},
              "image_corrupt": {**good, "image": cut}, "row_layout": {**good, "text": None}}  # fmt: skip
    write_parquet(tmp_path / "src/train/0000.parquet", [*faults.values(), good])
    made = convert("roborefit", tmp_path / "src", tmp_path / "out")
    assert reasons(made, "train/0000.parquet") == dict(enumerate(faults))
    write_parquet(tmp_path / "bench/testA/0000.parquet", [good])
    with pytest.raises(DataError, match="none of the training split"):
        ROBOREFIT.files(tmp_path / "bench")


def test_robospatial_questions_and_boxes(tmp_path: Path) -> None:
    root = tmp_path / "src"
    save(root / "images/scan_x/room_7/0012.jpg")
    common = {"image_path": "scan_x/room_7/0012.jpg"}
    context = {**common, "qa_type": "unary_spatial_context", "question": "Mark free places behind the printer.",
               "answer": "[(0.331, 0.402), (0.352, 0.399), (0.340, 0.415)]"}  # fmt: skip
    pairs = [{**common, "qa_type": "pairwise_positional", "question": f"Is {n} left of the cup?",
              "answer": "Yes" if n % 2 else "no"} for n in range(40)]  # fmt: skip
    bad = [{**context, "answer": "[(0.3, 1.4)]"}, {**pairs[0], "answer": "maybe"}, {**context, "qa_type": "other"}]
    write_json(root / "qa/a.json", [context, *pairs, *bad])
    write_json(root / "annotations/scan_x/room_7/0012.annotations.json", {
        **common, "spatial_relationships": {},
        "object_grounding": [
            {"name": "mug", "category": "cup", "bbox": [16, 12, 32, 24], "bbox_3d": []},
            {"name": "chair", "category": "chair", "bbox": [0, 0, 9, 9]},
            {"name": "chair", "category": "chair", "bbox": [20, 20, 40, 40]},
            {"name": "lamp", "category": "lamp", "bbox": [60, 40, 90, 70]},
        ],
    })  # fmt: skip
    made = convert("robospatial", root, tmp_path / "out")
    assert reasons(made, "qa/a.json") == {41: "coord_range", 42: "choice_not_in_options", 43: "other_answer"}
    assert made["files"]["annotations/scan_x/room_7"]["left_out"] == {"coord_range": 1, "other_answer": 2}
    choices = [r for r in made["rows"] if r["answer_kind"] == "choice"]
    for r in choices:
        word = re.search(rf"\({r['choice']}\) (yes|no)", r["question"])
        number = int(re.search(r"Is (\d+)", r["question"])[1])  # type: ignore[index]
        assert word is not None
        assert word[1] == ("yes" if number % 2 else "no")
    assert {r["choice"] for r in choices} == {"A", "B"}
    assert made["rows"][-1]["target_boxes"] == [[0.25, 0.25, 0.5, 0.5]]


def clip_row(content: str, question: str = "What does the arm hold?", **changes: Any) -> dict[str, Any]:
    return {"video": "clips/901-640001-head_color-0120-0240.mp4",
            "conversations": [{"role": "system", "content": "You help."}, {"role": "user", "content": question},
                              {"role": "assistant", "content": content}], **changes}  # fmt: skip


def test_cosmos_rows_are_about_one_frame(tmp_path: Path) -> None:
    pytest.importorskip("av")
    root = tmp_path / "src"
    frames = [np.full((48, 64, 3), 25 * number, np.uint8) for number in range(9)]
    write_video(root / "clips/901-640001-head_color-0120-0240.mp4", frames)
    (root / "clips/cut.mp4").write_bytes(b"no video")
    faults = {
        "think_tags": clip_row("<think>It is empty<answer>Place it.</answer>"),
        "video_missing": clip_row("A tin.", video="clips/absent.mp4"),
        "video_corrupt": clip_row("A tin.", video="clips/cut.mp4"),
        "turn_order": {**clip_row("A"), "conversations": clip_row("A")["conversations"][::-1]},
        "text_empty": clip_row("<think>Hm.</think><answer> </answer>"),
        "choice_not_in_options": {"video": "x.mp4",
                                  "qa_pairs": {"question": "Q?", "index2ans": {"A": "a"}, "answer": "C"}},
    }  # fmt: skip
    video = clip_row("")["video"]
    good = [
        clip_row("<think>The box is open.</think><answer>Place the tin.</answer>", "What should the arm do next?"),
        {"video": video, "qa_pairs": {"question": "What is it?", "index2ans": {"A": "cup", "B": "tin"}, "answer": "B"}},
    ]
    write_json(root / "agibot_reasoning_sft.json", [*faults.values(), *good])
    write_json(root / "agibot_understanding_sft.json", [clip_row("A tin."), clip_row("It grasps, then lifts.")])
    made = convert("cosmos", root, tmp_path / "out")
    assert reasons(made, "agibot_reasoning_sft.json") == dict(enumerate(faults))
    assert reasons(made, "agibot_understanding_sft.json") == {1: "motion_text"}
    understanding, reasoning, choice = made["rows"]
    assert reasoning["answer"] == "The box is open.\nPlace the tin."
    assert (choice["choice"], choice["answer_kind"]) == ("B", "choice")
    assert understanding["task"] == "understanding"
    from pokevla.data.dataset import open_dataset
    from pokevla.data.inspection import describe_sample

    shown = describe_sample(open_dataset(tmp_path / "out"), 0)
    assert shown["width"] == 64


def test_every_reason_code_has_a_sentence_and_one_meaning() -> None:
    tables = [rules.REJECTED, rules.PASSED_OVER, rules.FLAGGED]
    assert sum(map(len, tables)) == len({code for table in tables for code in table})
    assert all(rules.describe(code) for table in [*tables, rules.ALARMS] for code in table)
    with pytest.raises(RuntimeError, match="is not a reason code"):
        rules.Reject("unknown")
