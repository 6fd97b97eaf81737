from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from pokevla.data.dataset import open_dataset
from pokevla.data.images.picture_hash import pixels_sha256
from pokevla.data.reader import ShardReader
from pokevla.data.records import parse_points
from tests.unit.data.curation.published import convert, reasons, save, talk, write_json

VACANT, MULTI_VIEW = "3D/vacant_qa.json", "3D/multi_view_qa.json"


def row(name: str, *texts: str, images: tuple[str, ...] = ("room.png",), **more: Any) -> dict[str, Any]:
    return {"id": name, "image": list(images), "depth": list(images), "conversations": talk(*texts), **more}


def test_each_exchange_is_one_record_of_its_image(tmp_path: Path) -> None:
    save(tmp_path / "src/3D/image/room.png")
    save(tmp_path / "src/2D/image/b.png")
    good = row("3D_0", "Point at free floor.", "[(0.487, 0.811)]", "Which is nearer? (A) stool (B) basket", "(A) stool")
    write_json(tmp_path / "src" / VACANT, [good])
    write_json(tmp_path / "src/2D/choice_qa.json",
               [row("2D_0", "Which is left? (A) cup (B) jar", "(B) jar", images=("b.png",))])  # fmt: skip
    made = convert("refspatial", tmp_path / "src", tmp_path / "out", "--val-every", "2")
    assert made["codes"] == {}
    first, second, third = made["rows"]
    assert (first["category"], first["choice"], first["answer"]) == ("reasoning", "B", "B")
    assert first["question"] == "Which is left? (A) cup (B) jar Reply with the option letter only."
    assert (second["category"], second["task"]) == ("grounding", "vacant_point")
    assert second["answer"] == "[(0.487, 0.811)]"
    assert third["choice"] == "A"
    assert second["split"] == third["split"]  # an image is of one split
    assert [row["key"] for row in made["rows"][1:]] == [
        "refspatial-3d_vacant-00000000-q00", "refspatial-3d_vacant-00000000-q01",
    ]  # fmt: skip


def test_a_fault_of_one_exchange_costs_only_that(tmp_path: Path) -> None:
    save(tmp_path / "src/3D/image/room.png")
    rows = [
        row("many", "A", "[(0.1, 0.2)]", images=("room.png",) * 5),
        row("odd", "A", "[(0.1, 0.2)]", "B"),
        row("empty", "A", "", "Point.", "[(0.1, 0.2)]"),
        row("long", "A", "[(0.1, 0.2)]", "word " * 200, "x"),
        row("loop", "Where is a/a/a/a/a?", "there", "Point.", "[(0.1, 0.2)]"),
        row("letter", "Which? (A) cup (B) jar", "(C) pot", "Which? (A) cup (B) jar", "neither"),
        row("image", "A", "B", images=("absent.png",)),
        row("role", "A", "[(0.1, 0.2)]", "B", "C"),
        row("token", "A", "[(0.1, 0.2)]", "<image> B", "C"),
        {"id": "name", "image": "room.png", "conversations": talk("A", "B")},
    ]
    rows[7]["conversations"][3]["from"] = "human"
    write_json(tmp_path / "src" / VACANT, rows)
    made = convert("refspatial", tmp_path / "src", tmp_path / "out")
    assert reasons(made, VACANT) == {
        0: "multi_image", 1: "turn_order", 2: "text_empty", 3: "text_too_long", 4: "text_loop",
        5: "choice_not_in_options", 6: "image_missing", 7: "turn_order", 8: "image_token_count", 9: "row_layout",
    }  # fmt: skip
    assert [(r["key"].split("-")[2], r["answer"]) for r in made["rows"]] == [
        (f"{number:08d}", "[(0.100, 0.200)]") for number in (2, 3, 4, 7, 8)
    ]


def test_a_row_of_several_images_gives_records_of_all_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "src/3D/image_multi_view"
    for number, width in enumerate((64, 80, 96)):
        save(folder / f"v{number}.png", width, seed=number)
    views = ("v0.png", "v1.png", "v2.png")
    asked = ("<image>\n<image>\nPoint at the cup in the second view.", "[(0.1, 0.2)]",
             "In which is it nearer? (A) first (B) third", "(B) third")  # fmt: skip
    rows = [
        row("three", *asked, images=views),
        row("token", "Point.", "[(0.1, 0.2)]", "Where?", "There.", images=views[:2]),
        row("absent", "<image>\nA", "B", images=("v0.png", "none.png")),
        row("five", "<image>" * 4, "B", images=views + views[:2]),
        row("none", "A", "B", images=()),
        row("pair", "<image>\nWhat moved?", "The cup.", images=views[1:]),
    ]
    write_json(tmp_path / "src" / MULTI_VIEW, rows)
    made = convert("refspatial", tmp_path / "src", tmp_path / "out")
    assert reasons(made, MULTI_VIEW) == {1: "image_token_count", 2: "image_missing", 3: "multi_image", 4: "row_layout"}
    assert made["several_images"] == 3
    assert [(each["num_images"], each["width"], each["answer"]) for each in made["rows"]] == [
        (3, 64, "[(0.100, 0.200)]"), (3, 64, "B"), (2, 80, "The cup."),
    ]  # fmt: skip
    assert made["rows"][0]["question"].startswith("Point at the cup in the second view.")
    reader = ShardReader(open_dataset(tmp_path / "out"))
    stored = [reader.read(place) for place in range(3)]
    assert [sorted(each) for each in stored] == [["1.jpg", "2.jpg", "jpg", "json"]] * 2 + [["1.jpg", "jpg", "json"]]
    widths = [Image.open(io.BytesIO(stored[0][name])).width for name in ("jpg", "1.jpg", "2.jpg")]
    assert widths == [64, 80, 96]
    orig = json.loads(stored[2]["json"])["orig"]
    assert orig["group"] == "3D/image_multi_view/v1.png"
    (further,) = orig["further_images"]
    with Image.open(folder / "v2.png") as image:
        assert further == {"name": "3D/image_multi_view/v2.png", "sha256": pixels_sha256(image.convert("RGB"))}


def test_a_set_without_several_images_has_no_column_for_them(tmp_path: Path) -> None:
    save(tmp_path / "src/3D/image/room.png")
    write_json(tmp_path / "src" / VACANT, [row("one", "A", "[(0.1, 0.2)]")])
    made = convert("refspatial", tmp_path / "src", tmp_path / "out")
    assert "several_images" not in made
    assert "num_images" not in made["rows"][0]
    assert "num_images" not in json.loads(ShardReader(open_dataset(tmp_path / "out")).read(0)["json"])


def test_the_reasoning_part_has_its_thinking_before_the_answer(tmp_path: Path) -> None:
    save(tmp_path / "src/Simulator/image/sim.png")
    thinking = [{"question_type": "p", "thinking": "The mug is left of the pan."}]
    rows = [row("s", "Point at the mug.", "[(0.25, 0.5)]", images=("sim.png",), thinking=thinking),
            row("t", "How far is the mug?", "0.4 m", images=("sim.png",), thinking=None)]  # fmt: skip
    write_json(tmp_path / "src/Simulator/metadata.json", rows)
    made = convert("refspatial-reasoning", tmp_path / "src", tmp_path / "out")
    first, second = made["rows"]
    assert (first["category"], first["answer_kind"]) == ("reasoning", "text")
    assert first["answer"] == "The mug is left of the pan.\n[(0.250, 0.500)]"
    assert first["target_points"] == [list(p) for p in parse_points(first["answer"])]
    assert second["answer"] == "0.4 m"


def test_a_letter_that_is_nearly_always_right_is_an_alarm(tmp_path: Path) -> None:
    save(tmp_path / "src/2D/image/b.png")
    rows = [row(str(n), "Which? (A) cup (B) jar", "(A) cup" if n else "(B) jar", images=("b.png",)) for n in range(60)]
    write_json(tmp_path / "src/2D/choice_qa.json", rows)
    made = convert("refspatial", tmp_path / "src", tmp_path / "out")
    assert made["alarms"] == {"choice_letter_skew": ["A is the answer of 59 of 60"]}
    assert made["letters"] == {"A": 59, "B": 1}
