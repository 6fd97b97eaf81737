from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pokevla.data.curation.rules import REJECTED
from pokevla.data.dataset import open_dataset
from pokevla.data.reader import ShardReader
from pokevla.data.records import MAX_IMAGES, parse_boxes
from tests.unit.data.curation.published import convert, pixels, reasons, save, talk, write_json

LIST = "llava_v1_5_mix665k.json"


def good_rows(root: Path) -> list[dict]:
    save(root / "coco/train2017/000000004711.jpg", quality=90)
    save(root / "vg/VG_100K/1.jpg", 80, 40)
    save(root / "ocr_vqa/images/9.png")
    return [
        {"id": "0", "image": "coco/train2017/000000004711.jpg",
         "conversations": talk("What is on the bench?", "A folded umbrella.", "Is it open?", "No.")},
        {"id": "1", "model": "", "conversations": talk("Write a haiku.", "Leaves fall.", image=False)},
        {"id": "2", "image": "vg/VG_100K/1.jpg",
         "conversations": talk("Where is the cup?", "[0.25, 0.375, 0.5, 0.625]")},
        {"id": "3", "image": "vg/VG_100K/1.jpg",
         "conversations": talk("Describe [0.25, 0.375, 0.5, 0.625].", "A cup.", "The lid?", "[0.0, 0.25, 1.0, 0.75]")},
        {"id": "4", "image": "coco/train2017/000000004711.jpg",
         "conversations": talk("Which?\nA. cup\nB. bowl\nAnswer with the option's letter from the given choices "
                               "directly.", "B")},
        {"id": "5", "image": "ocr_vqa/images/9.jpg", "conversations": talk("What is the title?", "Ice")},
    ]  # fmt: skip


def test_each_row_is_one_record_in_the_unified_form(tmp_path: Path) -> None:
    write_json(tmp_path / "src" / LIST, good_rows(tmp_path / "src"))
    made = convert("llava", tmp_path / "src", tmp_path / "out")
    assert made["codes"] == {}
    rows = made["rows"]
    assert [row["answer_kind"] for row in rows] == ["text", "text", "box", "text", "choice", "text"]
    assert rows[0]["question"] == "What is on the bench?"
    assert rows[0]["further_turns"] == [["Is it open?", "No."]]
    assert (rows[1]["width"], rows[1]["height"]) == (0, 0)
    # 80x40, padded by 20 above and below: y = (y * 80 - 20) / 40
    assert rows[2]["target_boxes"] == [[0.25, 0.25, 0.5, 0.75]]
    assert rows[3]["question"] == "Describe [(0.250, 0.250, 0.500, 0.750)]."
    assert rows[3]["further_turns"] == [["The lid?", "[(0.000, 0.000, 0.999, 0.999)]"]]
    assert parse_boxes(rows[3]["further_turns"][0][1]) == [(0.0, 0.0, 0.999, 0.999)]
    assert rows[4]["choice"] == "B"
    assert {row["category"] for row in rows} == {"general"}
    reader = ShardReader(open_dataset(tmp_path / "out"))
    original = (tmp_path / "src/coco/train2017/000000004711.jpg").read_bytes()
    assert reader.read(0)["jpg"] == original
    assert "jpg" not in reader.read(1)


BAD_TEXTS = {
    "turn_order": [{"from": "gpt", "value": "<image>\nA"}, {"from": "human", "value": "B"}],
    "image_token_count": talk("A <image>", "B"),
    "text_empty": talk("A", "  "),
    "text_loop": talk("A", "no no no no no no no no no no"),
    "text_too_long": talk("A", "long " * 2_000_000),
    "row_layout": "conversations",
    "box_padding": talk("Where?", "[0.1, 0.0, 0.3, 0.1]"),
    "choice_not_in_options": talk("Which?\nA. x\nB. y\nAnswer with the option's letter.", "D"),
}


def test_each_fault_of_a_row_has_its_code_and_costs_only_that_row(tmp_path: Path) -> None:
    good = good_rows(tmp_path / "src")
    bad = [{"id": code, "image": "vg/VG_100K/1.jpg", "conversations": talks} for code, talks in BAD_TEXTS.items()]
    bad.append({"id": "odd", "image": "vg/VG_100K/1.jpg", "conversations": talk("A", "B", "C")})
    bad.append({"id": "odd", "image": "../../etc/passwd", "conversations": talk("A", "B")})
    bad.append({"id": "text", "conversations": talk("A", "\ud800", image=False)})
    write_json(tmp_path / "src" / LIST, bad + good)
    made = convert("llava", tmp_path / "src", tmp_path / "out")
    expected = [*BAD_TEXTS, "turn_order", "image_path", "text_not_utf8"]
    assert reasons(made, LIST) == dict(enumerate(expected))
    assert len(made["rows"]) == len(good)
    assert "many_rejected" in made["alarms"]


def test_a_list_of_images_is_one_record_of_all_of_them(tmp_path: Path) -> None:
    good_rows(tmp_path / "src")
    one, other = "coco/train2017/000000004711.jpg", "vg/VG_100K/1.jpg"  # 64 x 48 and 80 x 40
    save(tmp_path / "src/vg/VG_100K/2.jpg", 80, 40, seed=2)
    exif = Image.Exif()
    exif[0x0112] = 3
    save(tmp_path / "src/vg/VG_100K/turned.jpg", 80, 40, exif=exif)
    turned = "vg/VG_100K/turned.jpg"
    box = "[0.25, 0.375, 0.5, 0.625]"
    rows = [
        {"id": "two", "image": [one, other], "conversations": talk("<image> What differs?", "All.", "Really?", "Yes.")},
        {"id": "one", "image": [one], "conversations": talk("What is it?", "A bench.")},
        {"id": "token", "image": [one, other], "conversations": talk("What?", "All.")},
        {"id": "later", "image": [one, other], "conversations": talk("What?", "All.", "<image> And here?", "Yes.")},
        {"id": "five", "image": [one] * 5, "conversations": talk("<image>" * 4 + "What?", "All.")},
        {"id": "empty", "image": [], "conversations": talk("What?", "All.")},
        {"id": "number", "image": [one, 7], "conversations": talk("<image> What?", "All.")},
        {"id": "sizes", "image": [one, other], "conversations": talk("<image> Where?", box)},
        {"id": "size", "image": ["vg/VG_100K/2.jpg", other], "conversations": talk("<image> Where?", box)},
        {"id": "exif", "image": [other, turned], "conversations": talk("<image> Where?", box)},
        {"id": "path", "image": [other, "../../etc/passwd"], "conversations": talk("<image> What?", "All.")},
    ]
    write_json(tmp_path / "src" / LIST, rows)
    made = convert("llava", tmp_path / "src", tmp_path / "out")
    found = {rows[row]["id"]: code for row, code in reasons(made, LIST).items()}
    assert found == {
        "token": "image_token_count", "later": "image_token_count", "five": "multi_image", "empty": "row_layout",
        "number": "row_layout", "sizes": "multi_image", "exif": "exif_rotated", "path": "image_path",
    }  # fmt: skip
    kept = [(row["num_images"], row["width"], row["question"]) for row in made["rows"]]
    assert kept[:2] == [(2, 64, "What differs?"), (1, 64, "What is it?")]
    assert made["rows"][2]["target_boxes"] == [[0.25, 0.25, 0.5, 0.75]]
    assert f"more than {MAX_IMAGES} images" in REJECTED["multi_image"]


def test_rows_that_are_not_json_or_not_utf8_cost_only_themselves(tmp_path: Path) -> None:
    good = good_rows(tmp_path / "src")
    path = write_json(tmp_path / "src" / LIST, good)
    rows = path.read_bytes()[1:-1]
    path.write_bytes(b'[{"id": "\xff"}, null, {"id": 1,}, {"id": 1e400}, {"id": NaN},' + rows + b"]")
    made = convert("llava", tmp_path / "src", tmp_path / "out")
    assert reasons(made, LIST) == {
        0: "text_not_utf8", 1: "row_layout", 2: "row_not_json", 3: "row_layout", 4: "row_layout",
    }  # fmt: skip
    assert len(made["rows"]) == len(good)


def test_images_are_repaired_or_rejected_by_their_code(tmp_path: Path) -> None:
    root = tmp_path / "src"
    folder = root / "coco"
    save(folder / "good.jpg")
    save(folder / "small.png", 31, 40)
    save(folder / "gif.jpg", format="GIF")
    frames = [Image.fromarray(pixels(seed=seed)) for seed in range(3)]
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(pixels()).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray((pixels()[..., 0].astype(np.uint16) << 8) + 7).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "turned.jpg", exif=exif)
    (folder / "cut.jpg").write_bytes((folder / "good.jpg").read_bytes()[:-200])
    (folder / "noise.jpg").write_bytes(b"no image")
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * (80 << 20), zip=True)
    save(folder / "text.png", pnginfo=text)
    header = Image.new("1", (20_000, 20_000))
    header.save(folder / "bomb.png")
    names = [*sorted(path.name for path in folder.iterdir()), "absent.jpg"]
    rows = [{"id": name, "image": f"coco/{name}", "conversations": talk("A", "B")} for name in names]
    rows.append({"id": "box", "image": "coco/turned.jpg", "conversations": talk("A", "[0.2, 0.3, 0.4, 0.6]")})
    write_json(root / LIST, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = convert("llava", root, tmp_path / "out")
    found = {rows[row]["id"]: code for row, code in reasons(made, LIST).items()}
    assert found == {
        "absent.jpg": "image_missing",
        "animated.gif": "image_gif_or_animated",
        "bomb.png": "image_bomb",
        "box": "exif_rotated",
        "cut.jpg": "image_corrupt",
        "noise.jpg": "image_corrupt",
        "small.png": "image_too_small",
    }
    assert made["files"][LIST]["flagged"] == {"exif_turned": 1, "gif": 1, "image_mode": 2, "png_text_chunk": 1}
    reader = ShardReader(open_dataset(tmp_path / "out"))
    kept = [row["id"] for row in rows if row["id"] not in found]
    stored = {name: Image.open(io.BytesIO(reader.read(place)["jpg"])) for place, name in enumerate(kept)}
    assert {image.mode for image in stored.values()} == {"RGB"}
    assert stored["turned.jpg"].size == (48, 64)
    red = np.asarray(stored["deep.png"])[..., 0].astype(int)
    assert np.abs(red - pixels()[..., 0]).max() < 12
    assert zlib.crc32(reader.read(kept.index("good.jpg"))["jpg"]) == zlib.crc32((folder / "good.jpg").read_bytes())


def test_a_zip_instead_of_a_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src.zip").write_bytes(b"PK\x03\x04" + bytes(600))
    convert("llava", tmp_path / "src.zip", tmp_path / "out", code=3)
    assert "is a file, perhaps an archive. Unpack the source" in capsys.readouterr().err
    (tmp_path / "src" / "images.zip").write_bytes(b"PK\x03\x04" + bytes(600))
    convert("llava", tmp_path / "src", tmp_path / "out", code=3)
    assert "images.zip is a zip archive. Unpack it" in capsys.readouterr().err
    (tmp_path / "src" / LIST).write_bytes(bytes(257) + b"ustar" + bytes(600))
    convert("llava", tmp_path / "src", tmp_path / "out", code=3)
    assert f"{LIST} is a tar archive" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
