"""`pokevla data duplicates` on datasets with planted duplicates and contradictions."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.images.picture_hash import pixels_sha256
from pokevla.data.screening import scanning
from pokevla.data.screening.left_out import SCHEMA, read_left_out
from pokevla.errors import DataError
from tests.toys import write_toy_dataset, write_toy_questions
from tests.unit.data.curation.published import pixels
from tests.unit.data.screening.planted import LETTER, dataset, number_of, store
from tests.vlm_benchmarks import encoded, photograph

LONG = "Describe " + " ".join(f"thing{number}" for number in range(40))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One dataset that tests only read; PLANTED says what is wrong with its rows."""
    folder = tmp_path_factory.mktemp("planted")
    return plant(folder / "src", folder / "one")


PLANTED = {
    1: ("duplicate", 0),
    2: ("duplicate", 0),
    4: ("conflict", 5),
    5: ("conflict", 4),
    6: ("near_picture", 0),
    9: ("duplicate", 8),
    11: ("near_question", 10),
    16: ("conflict", 4),
}


def plant(source: Path, out: Path, *options: str) -> Path:
    photo = photograph()
    a = store(source, "000000000001.jpg", photo, quality=95)
    with Image.open(source / a) as stored:
        same = store(source, "copy.png", stored)
        near = store(source, "near.jpg", stored.resize((320, 240)), quality=60)
    other = store(source, "000000000002.jpg", Image.fromarray(pixels(seed=3)))
    rows = [
        (a, "What is it?", "A cup."),
        (a, "what is  IT", "a cup."),
        (same, "What is it?", "A cup."),
        (a, "What is it?", "A mug."),
        (a, f"Which?{LETTER}", "A"),
        (a, f"Which?{LETTER}", "B"),
        (near, "What is it?", "A cup."),
        (other, "What is it?", "A cup."),
        (None, "Write a haiku.", "Leaves fall."),
        (None, "Write a haiku.", "Leaves fall."),
        (a, LONG, "Many."),
        (a, f"{LONG} too", "Many."),
        (a, "Is it left of the bowl?", "Yes"),
        (a, "Is it right of the bowl?", "Yes"),
        (a, "Where is the cup?", "[0.25, 0.375, 0.5, 0.625]"),
        (a, "Where is the cup?", "[0.25, 0.375, 0.51, 0.625]"),
        (a, f"Which?{LETTER}", "A"),
        (near, "What is it?", "A jug."),
    ]
    return dataset(source, out, rows, *options)


def listed(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "left_out.parquet").to_pylist()


def test_each_planted_fault_is_listed_under_its_code_and_no_good_row_is(planted: Path, tmp_path: Path) -> None:
    assert run(["data", "duplicates", str(planted), "--out", str(tmp_path / "result")]) == 0
    rows = listed(tmp_path / "result")
    assert {number_of(row["key"]): (row["code"], number_of(row["because"])) for row in rows} == PLANTED
    assert [row["row"] for row in rows] == sorted(PLANTED)
    report = json.loads((tmp_path / "result/report.json").read_text())
    assert (report["samples"], report["pictures"]) == (18, 3), "the copy has the pixels of the first"
    assert report["left_out"] == {"conflict": 3, "duplicate": 3, "near_question": 1, "near_picture": 1}
    assert report["near_pairs_of_pictures"] == 1
    assert report["questions_with_several_answers"] == 4
    (example,) = report["examples"]["near_question"]
    assert (example["question"], example["its_question"]) == (f"{LONG} too"[:200], LONG[:200])
    fingerprint = open_dataset(planted).fingerprint
    assert read_left_out(tmp_path / "result", fingerprint).tolist() == sorted(PLANTED)
    assert read_left_out(tmp_path / "result", "another").tolist() == []


def test_threads_and_shards_do_not_change_what_is_left_out(tmp_path: Path) -> None:
    found = []
    for name, threads, shard_samples in (("a", "1", "1024"), ("b", "3", "2")):
        made = plant(tmp_path / f"{name}-src", tmp_path / name, "--shard-samples", shard_samples)
        assert run(["data", "duplicates", str(made), "--threads", threads, "--out", str(tmp_path / f"{name}-out")]) == 0
        found.append(
            [(row["row"], row["key"], row["code"], row["because"]) for row in listed(tmp_path / f"{name}-out")]
        )
    assert found[0] == found[1] != []


def test_of_two_datasets_the_first_keeps_its_row(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "src2"
    again = store(source, "another_name.jpg", photograph(), quality=95)
    second = dataset(source, tmp_path / "two", [(again, "What is this?", "A cup."), (again, "What is it?", "A cup.")])
    capsys.readouterr()
    assert run(["data", "duplicates", str(planted), str(second), "--json", "--out", str(tmp_path / "result")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["datasets"][str(second)]["left_out"]["duplicate"] == 1
    rows = [row for row in listed(tmp_path / "result") if row["dataset"] == str(second)]
    assert [(row["row"], number_of(row["because"])) for row in rows] == [(1, 0)]
    assert rows[0]["because"].startswith(f"{planted} llava-")
    assert run(["data", "duplicates", str(second), str(planted), "--out", str(tmp_path / "turned")]) == 0
    turned = {(row["dataset"], row["row"]): row["because"] for row in listed(tmp_path / "turned")}
    assert number_of(turned[str(planted), 0]) == 1
    assert (str(second), 1) not in turned


def test_an_output_that_is_not_ours_is_never_replaced(planted: Path, tmp_path: Path) -> None:
    out = tmp_path / "result"
    words = ["data", "duplicates", str(planted), "--out", str(out)]
    assert run(words) == 0
    assert run(words) == 3
    assert run([*words, "--overwrite"]) == 0
    (out / "thesis.txt").write_text("mine")
    assert run([*words, "--overwrite"]) == 3
    assert (out / "thesis.txt").read_text() == "mine"
    assert run(["data", "duplicates", str(planted), "--out", str(planted / "inside")]) == 2


def test_the_same_dataset_twice_is_refused(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "duplicates", str(planted), str(planted)]) == 2
    assert "given twice" in capsys.readouterr().err


def test_a_robot_dataset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "duplicates", str(write_toy_dataset(tmp_path / "robot"))]) == 2
    assert "is a robot dataset" in capsys.readouterr().err


def test_a_sample_without_target_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "duplicates", str(write_toy_questions(tmp_path / "questions", count=9))]) == 3
    assert "sample toy-1-0000 has JSON without question, answer or target" in capsys.readouterr().err


def test_pixels_are_hashed_where_a_record_does_not_have_the_hash_of_its_source() -> None:
    jpeg = encoded(photograph(), "JPEG")
    decoded = Image.open(io.BytesIO(jpeg)).convert("RGB")
    assert scanning._picture(jpeg, None, "key").sha256 == pixels_sha256(decoded)
    assert scanning._picture(jpeg, "a" * 64, "key").sha256 == "a" * 64


def test_a_damaged_shard_is_named(planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(planted, tmp_path / "copy")
    (shard,) = (copy / "shards").glob("*.tar")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    assert run(["data", "duplicates", str(copy)]) == 3
    assert shard.name in capsys.readouterr().err


def test_a_damaged_list_is_refused(planted: Path, tmp_path: Path) -> None:
    assert run(["data", "duplicates", str(planted), "--out", str(tmp_path / "result")]) == 0
    path = tmp_path / "result/left_out.parquet"
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(0).column(SCHEMA.get_field_index("row"))
    start = column.dictionary_page_offset or column.data_page_offset
    content = bytearray(path.read_bytes())
    content[start + column.total_compressed_size - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"left_out\.parquet cannot be read"):
        read_left_out(path, "any")
    with pytest.raises(DataError, match="cannot be read"):
        read_left_out(tmp_path / "absent.parquet", "any")


def test_a_dataset_without_faults_leaves_an_empty_list(tmp_path: Path) -> None:
    a = store(tmp_path / "src", "1.jpg", Image.fromarray(pixels(seed=1)))
    made = dataset(tmp_path / "src", tmp_path / "one", [(a, "What?", "This."), (a, "Where?", "There.")])
    assert run(["data", "duplicates", str(made), "--out", str(tmp_path / "result")]) == 0
    assert listed(tmp_path / "result") == []
    assert np.array_equal(read_left_out(tmp_path / "result", open_dataset(made).fingerprint), np.empty(0, np.int64))


def test_samples_of_several_images_are_compared_by_all_of_them(tmp_path: Path) -> None:
    source = tmp_path / "src"
    a = store(source, "000000000001.jpg", photograph(), quality=95)
    with Image.open(source / a) as stored:
        near = store(source, "near.jpg", stored.resize((320, 240)), quality=60)
        same = store(source, "same.png", stored)
    b = store(source, "000000000002.jpg", Image.fromarray(pixels(seed=3)))
    c = store(source, "000000000003.jpg", Image.fromarray(pixels(seed=4)))
    asked = ("What differs?", "The cup.")
    rows = [([a, b], *asked), ([same, b], *asked), ([b, a], *asked), (a, *asked), ([a, b, c], *asked),
            ([near, b], *asked), ([near, c], *asked), ([a, c], "Which?" + LETTER, "A"),
            ([a, c], "Which?" + LETTER, "B")]  # fmt: skip
    made = dataset(source, tmp_path / "made", rows)
    assert run(["data", "duplicates", str(made), "--out", str(tmp_path / "found")]) == 0
    left_out = pq.read_table(tmp_path / "found/left_out.parquet").to_pylist()
    found = {each["row"]: (each["code"], number_of(each["because"])) for each in left_out}
    assert found == {1: ("duplicate", 0), 5: ("near_picture", 0), 7: ("conflict", 8), 8: ("conflict", 7)}
    report = json.loads((tmp_path / "found/report.json").read_text())
    assert report["pictures"] == 4
