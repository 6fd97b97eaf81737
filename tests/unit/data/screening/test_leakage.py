"""`pokevla data denylist` and `leakage` with copied, resized, cropped and recompressed pictures of benchmarks."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw, ImageOps

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.screening.deny_list import DenyList, picture_name
from pokevla.data.screening.left_out import read_left_out
from tests.unit.data.curation.published import pixels, save
from tests.unit.data.screening.planted import dataset, number_of, store
from tests.vlm_benchmarks import cvbench_row, encoded, photograph, write_cvbench, write_refspatial, write_where2place

LEFT = (0, 0, 320, 480)
OTHER_HALF = cvbench_row(99, "Omni3D", ["near", "far"], "A")


@pytest.fixture(scope="module")
def deny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A deny list of Where2Place with one question, whose picture is a photograph."""
    folder = tmp_path_factory.mktemp("deny")
    data = write_where2place(folder / "w2p", [LEFT])
    assert run(["data", "denylist", str(folder / "deny.parquet"), str(data)]) == 0
    return folder / "deny.parquet"


def recompressed(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cut(picture: Image.Image, side: float, x: float = 0.5, y: float = 0.5) -> Image.Image:
    width, height = picture.size
    left, top = width * (1 - side) * x, height * (1 - side) * y
    return picture.crop((int(left), int(top), int(left + width * side), int(top + height * side)))


def with_boxes(picture: Image.Image) -> Image.Image:
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    draw.rectangle([130, 150, 290, 290], outline="red", width=4)
    draw.rectangle([380, 240, 570, 380], outline="blue", width=4)
    return picture


FOUND: dict[str, Callable[[Image.Image], Image.Image]] = {
    "recompressed": lambda p: recompressed(p, 20),
    "smaller": lambda p: p.resize((320, 240)),
    "square": lambda p: recompressed(p.resize((112, 112)), 50),
    "darker": lambda p: p.point(lambda value: int(value * 0.8)),
    "grey": lambda p: p.convert("L"),
    "with boxes": with_boxes,
    "mirrored": ImageOps.mirror,
    "centre": lambda p: cut(p, 0.9),
    "corner": lambda p: recompressed(cut(p, 0.85, 1.0, 0.0), 80),
    "small centre": lambda p: cut(p, 0.75),
    "square crop": lambda p: ImageOps.fit(p, (224, 224)),
    "padded": lambda p: ImageOps.pad(p, (336, 336)),
}
NOT_FOUND: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half": lambda p: cut(p, 0.5),
    "upside down": ImageOps.flip,
    "turned": lambda p: p.rotate(90, expand=True),
    "within another": lambda p: ImageOps.expand(p, 200, "white"),
}
"""What docs/data.md says is not found. If one of these begins to be found, change the page."""


def leaks(made: Path, deny: Path, out: Path, *options: str, code: int = 3) -> list[dict[str, Any]]:
    assert run(["data", "leakage", str(made), "--deny", str(deny), "--out", str(out), *options]) == code
    return pq.read_table(out / "left_out.parquet").to_pylist()


def of_pictures(folder: Path, pictures: Sequence[Image.Image], question: str = "What is it?") -> Path:
    source = folder / "src"
    rows = [(store(source, f"{n}.png", picture), question, f"Thing {n}.") for n, picture in enumerate(pictures)]
    return dataset(source, folder / "made", rows)


def test_a_copied_picture_and_what_becomes_of_it_is_found(tmp_path: Path, deny: Path) -> None:
    copy = Image.open(deny.parent / "w2p/images/00.jpg").convert("RGB")
    others = [Image.fromarray(pixels(160, 120, seed)) for seed in range(4)]
    made = of_pictures(tmp_path, [copy, *(change(copy) for change in FOUND.values()), *others])
    rows = leaks(made, deny, tmp_path / "result")
    codes = {number_of(row["key"]): row["code"] for row in rows}
    assert codes == {0: "leak_exact", **dict.fromkeys(range(1, 1 + len(FOUND)), "leak_picture")}
    assert all(row["because"].startswith("where2place point/0: ") for row in rows)
    assert "mirrored" in rows[1 + list(FOUND).index("mirrored")]["because"]
    assert read_left_out(tmp_path / "result", open_dataset(made).fingerprint).tolist() == list(range(1 + len(FOUND)))
    assert json.loads((tmp_path / "result/report.json").read_text())["hits"] == {
        "leak_exact": 1, "leak_picture": len(FOUND),
    }  # fmt: skip


def test_small_things_on_a_plain_ground_are_told_apart(tmp_path: Path) -> None:
    def plain(x: int, y: int) -> Image.Image:
        picture = Image.new("RGB", (640, 480), "white")
        ImageDraw.Draw(picture).rectangle([x, y, x + 60, y + 80], fill="brown")
        return picture

    (tmp_path / "home").mkdir()
    plain(100, 100).save(tmp_path / "home/1.png")
    assert run(["data", "denylist", str(tmp_path / "deny.parquet"), str(tmp_path / "home")]) == 0
    made = of_pictures(tmp_path, [plain(400, 300), plain(300, 80), plain(100, 100).resize((320, 240))])
    (hit,) = leaks(made, tmp_path / "deny.parquet", tmp_path / "result")
    assert number_of(hit["key"]) == 2


def test_what_is_not_found_is_what_the_page_says(tmp_path: Path, deny: Path) -> None:
    copy = Image.open(deny.parent / "w2p/images/00.jpg").convert("RGB")
    made = of_pictures(tmp_path, [change(copy) for change in NOT_FOUND.values()])
    assert leaks(made, deny, tmp_path / "result", code=0) == []


def test_a_copied_question_is_found_and_a_question_in_the_same_words_is_not(tmp_path: Path) -> None:
    rows = [cvbench_row(number, "COCO", ["cup", "bowl"], "A") for number in range(4)]
    for number, row in enumerate(rows):
        row["question"] = f"Considering the places of all objects, which one of them is nearer to thing {number} here?"
    data = write_cvbench(tmp_path / "cv", [*rows, OTHER_HALF], parquet=True)
    assert run(["data", "denylist", str(tmp_path / "deny.parquet"), str(data)]) == 0
    asked = [
        (None, f"{rows[2]['question']} (A) cup (B) bowl Answer with the option's letter.", "A"),
        (None, f"Please look. {rows[1]['question']} Say it.", "A cup."),
        (None, "Considering the places of all objects, which one of them is red?", "The cup."),
        (None, "Which is it?", "This."),
    ]
    made = dataset(tmp_path / "src", tmp_path / "made", asked)
    found = leaks(made, tmp_path / "deny.parquet", tmp_path / "result")
    assert {number_of(row["key"]): row["because"].split(":")[0] for row in found} == {0: "cvbench 2", 1: "cvbench 1"}
    assert {row["code"] for row in found} == {"leak_text"}


def test_the_name_of_a_picture_is_found_in_another_picture(tmp_path: Path) -> None:
    row = {**cvbench_row(0, "COCO", ["cup", "bowl"], "A"), "source_filename": "COCO_val2017_000000123456.jpg"}
    data = write_cvbench(tmp_path / "cv", [row, OTHER_HALF], parquet=False)
    assert run(["data", "denylist", str(tmp_path / "deny.parquet"), str(data)]) == 0
    source = tmp_path / "src"
    names = [store(source, f"{n}.jpg", Image.fromarray(pixels(seed=5))) for n in ("000000123456", "000000123457")]
    rows = [*((name, "What?", "This.") for name in names), (names[::-1], "Which?", "That.")]  # last: of two pictures
    made = dataset(source, tmp_path / "made", rows)
    found = leaks(made, tmp_path / "deny.parquet", tmp_path / "result")
    assert [(hit["code"], number_of(hit["key"])) for hit in found] == [("leak_id", 0), ("leak_id", 2)]


def test_names_that_tell_nothing_are_not_compared() -> None:
    assert picture_name("a/COCO_train2014_000000004711.jpg") == picture_name("x\\000000004711.png") == "000000004711"
    assert picture_name("images/07.jpg") is None
    assert picture_name("photograph.jpg") is None
    assert picture_name("image_0000031.jpg") is None
    assert picture_name("ADE_val_00000001.jpg") == "ade_val_00000001"


def test_a_waiver_with_a_reason_accepts_a_hit_and_nothing_else(
    tmp_path: Path, deny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = of_pictures(tmp_path, [photograph(), ImageOps.mirror(photograph())])
    first, second = leaks(made, deny, tmp_path / "result")
    waivers = tmp_path / "waivers.json"
    shared = {"code": "leak_picture", "benchmark": "where2place", "reason": "the photograph is a stand-in"}
    waivers.write_text(json.dumps([{**shared, "key": first["key"]}, {**shared, "item": "point/77"}]))
    words = ["--waivers", str(waivers)]
    capsys.readouterr()
    (left,) = leaks(made, deny, tmp_path / "one", *words)
    assert left["key"] == second["key"]
    err = capsys.readouterr().err
    assert "waived: 1 leak_picture of where2place (the photograph is a stand-in)" in err
    assert "this waiver covers nothing" in err
    assert f"leak_picture: {second['key']} of" in err
    waivers.write_text(json.dumps([{**shared, "item": "point/0"}]))
    assert leaks(made, deny, tmp_path / "two", *words, code=0) == []
    report = json.loads((tmp_path / "two/report.json").read_text())
    assert report["waived"][0]["hits"] == 2
    assert run(["data", "leakage", str(made), "--deny", str(deny), *words]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "holds no list"),
        ('[{"code": "leak_text", "benchmark": "cvbench", "item": "1"}]', "has no reason"),
        ('[{"code": "leak_text", "benchmark": "cvbench", "item": "1", "reason": " "}]', "has no reason"),
        ('[{"code": "leak_text", "benchmark": "cvbench", "reason": "all"}]', "would cover the whole benchmark"),
        ('[{"code": "leak", "benchmark": "cvbench", "item": "1", "reason": "x"}]', "there is no code 'leak'"),
        ('[{"code": "leak_text", "benchmark": "cvbench", "itme": "1", "reason": "x"}]', "unknown field 'itme'"),
        ("[", "waivers.json"),
    ],
)
def test_a_waiver_file_that_cannot_be_meant_is_refused(
    tmp_path: Path, deny: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "waivers.json").write_text(content)
    words = ["data", "leakage", str(tmp_path), "--deny", str(deny), "--waivers", str(tmp_path / "waivers.json")]
    assert run(words) == 3
    assert message in capsys.readouterr().err


def test_all_benchmarks_and_other_pictures_go_into_one_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_where2place(tmp_path / "w2p", [LEFT])
    write_refspatial(tmp_path / "ref", [LEFT], parquet=True)
    write_refspatial(tmp_path / "folders", [LEFT], parquet=False)
    write_cvbench(tmp_path / "cv", [cvbench_row(0, "ADE20K", ["a", "b"], "A"), OTHER_HALF], parquet=True)
    save(tmp_path / "home/a/1.png", seed=7)
    save(tmp_path / "home/2.jpg", seed=8)
    folders = [str(tmp_path / name) for name in ("w2p", "ref", "folders", "cv", "home")]
    words = ["data", "denylist", str(tmp_path / "deny.parquet"), *folders]
    assert run(words) == 0
    out = capsys.readouterr().out
    assert "where2place: 1 pictures, 2 questions, 2 of them too short" in out
    assert "home: 2 pictures, 0 questions" in out
    before = (tmp_path / "deny.parquet").read_bytes()
    assert set(DenyList.read(tmp_path / "deny.parquet").benchmarks) == {"where2place", "refspatial", "cvbench", "home"}
    assert run(words) == 3, "it exists"
    assert run([*words, "--overwrite"]) == 0
    assert (tmp_path / "deny.parquet").read_bytes() == before
    made = of_pictures(tmp_path, [Image.fromarray(pixels(seed=8))])
    (hit,) = leaks(made, tmp_path / "deny.parquet", tmp_path / "result")
    assert hit["because"].startswith("home 2.jpg: ")


def test_robospatial_home_and_where2place_by_flageval_are_told_apart_by_their_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = {"bytes": encoded(Image.fromarray(pixels(seed=9))), "path": "home_00000001.png"}
    question = "In the image, is there room for the lamp to the left of the sofa?"
    home = {"category": "context", "question": question, "answer": "yes", "img": picture, "mask": picture}
    flag = {"question": "Find room.", "question_type": "seen", "image": picture, "mask": picture}
    for name, row in (("home", home), ("flag", flag)):
        (tmp_path / name / "data").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / name / "data/test-00000.parquet")
    words = ["data", "denylist", str(tmp_path / "deny.parquet"), str(tmp_path / "home"), str(tmp_path / "flag")]
    assert run(words) == 0
    out = capsys.readouterr().out
    assert "robospatial-home: 1 pictures, 1 questions\n" in out
    assert "where2place: 1 pictures, 1 questions" in out
    made = dataset(tmp_path / "src", tmp_path / "made", [(None, question, "Yes")])
    (hit,) = leaks(made, tmp_path / "deny.parquet", tmp_path / "result")
    assert (hit["code"], hit["because"]) == ("leak_text", "robospatial-home 0: the same question")


def test_what_is_no_benchmark_or_no_deny_list_is_refused(
    tmp_path: Path, deny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert run(["data", "denylist", str(tmp_path / "d.parquet"), str(tmp_path / "empty")]) == 3
    assert "has no pictures" in capsys.readouterr().err
    assert not (tmp_path / "d.parquet").exists()
    mine = tmp_path / "mine.parquet"
    mine.write_bytes(b"PAR1 mine")
    assert run(["data", "denylist", str(mine), str(deny.parent / "w2p"), "--overwrite"]) == 3
    assert mine.read_bytes() == b"PAR1 mine"
    content = bytearray(deny.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.parquet").write_bytes(content)
    for path in (mine, tmp_path / "damaged.parquet", tmp_path / "absent.parquet"):
        capsys.readouterr()
        assert run(["data", "leakage", str(tmp_path / "no"), "--deny", str(path)]) == 3
        assert "cannot be read as a deny list" in capsys.readouterr().err


def test_each_of_several_images_is_looked_at(tmp_path: Path, deny: Path) -> None:
    source, photo = tmp_path / "src", Image.open(deny.parent / "w2p/images/00.jpg").convert("RGB")
    other = store(source, "other.png", Image.fromarray(pixels(seed=5)))
    exact, near = store(source, "exact.png", photo), store(source, "near.png", photo.resize((320, 240)))
    rows = [
        ([other, other], "What?", "Nothing."),
        ([other, exact], "What?", "A."),
        ([other, other, near], "Who?", "B."),
    ]
    made = dataset(source, tmp_path / "made", rows)
    found = leaks(made, deny, tmp_path / "found")
    assert [(each["row"], each["code"]) for each in found] == [(1, "leak_exact"), (2, "leak_picture")]
