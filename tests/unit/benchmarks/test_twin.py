"""The synthetic twin: its answers are true, its faults are found, and its options decide every byte."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.twin import convert_all as converting
from benchmarks.twin import make
from benchmarks.twin.convert_all import convert_all
from benchmarks.twin.make import SOURCES, write_source, write_twin
from benchmarks.twin.plan import TwinSettings
from benchmarks.twin.scenes import COLOURS, make_scene
from pokevla.data.dataset import open_dataset
from pokevla.data.reader import ShardReader
from tests.unit.data.curation.published import convert


@pytest.mark.parametrize("name", list(SOURCES))
def test_the_conversion_finds_what_was_planted_and_keeps_the_rest(name: str, tmp_path: Path) -> None:
    if name == "cosmos":
        pytest.importorskip("av")
    settings = TwinSettings(rows=80, seed=1, pictures=10, faults=0.3, side=96)
    planted = write_source(name, tmp_path / "twin", settings)
    assert planted.rows == 80
    assert sum(planted.left_out.values()) > 5
    made = convert(name, tmp_path / "twin" / SOURCES[name].folder, tmp_path / "out")
    assert made["codes"] == dict(planted.left_out)
    assert made["records"] == planted.records


def test_points_and_boxes_are_on_what_the_question_names(tmp_path: Path) -> None:
    settings = TwinSettings(rows=120, seed=2, pictures=30, side=256)
    write_source("robopoint", tmp_path / "twin", settings)
    convert("robopoint", tmp_path / "twin/robopoint", tmp_path / "out")
    dataset = open_dataset(tmp_path / "out")
    reader, checked = ShardReader(dataset), 0
    for number, row in enumerate(dataset.samples.to_pylist()):
        found = re.search(rf"({'|'.join(COLOURS)}) (square|circle|triangle|diamond)", row["question"])
        if row["task"] != "object_point" or found is None:
            continue
        pixels = np.asarray(Image.open(io.BytesIO(reader.read(number)["jpg"])).convert("RGB")).astype(int)
        for x, y in row["target_points"]:
            shown = pixels[int(y * pixels.shape[0]), int(x * pixels.shape[1])]
            assert np.abs(shown - COLOURS[found[1]]).max() < 40, (row["question"], x, y)
            checked += 1
    reader.close()
    assert checked > 50


def tree(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_the_options_decide_every_byte_and_the_seed_changes_rows_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("av")
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_twin(tmp_path / folder, TwinSettings(rows=20, seed=seed, side=64))
    one, again, other = (tree(tmp_path / folder) for folder in "abc")
    assert one == again
    assert [name for name, digest in other.items() if one.get(name) == digest] == []


def test_a_pool_bounds_the_pictures_and_without_one_each_row_has_its_own(tmp_path: Path) -> None:
    for folder, pictures in (("pool", 5), ("own", 0)):
        write_source("hova-epic100", tmp_path / folder, TwinSettings(rows=40, pictures=pictures, side=64))
    assert len(list(tmp_path.glob("pool/hova/epic-100/EPIC*/**/*.jpg"))) == 5
    assert len(list(tmp_path.glob("own/hova/epic-100/EPIC*/**/*.jpg"))) == 40
    rows = json.loads((tmp_path / "pool/hova/annotations/train/epic100.json").read_text())
    assert len({(row["img_path"], row["verb"]) for row in rows}) > 5


def test_workers_and_shards_do_not_change_the_samples(tmp_path: Path) -> None:
    names = ["molmoact", "refspatial"]
    write_twin(tmp_path / "twin", TwinSettings(rows=600, pictures=6, faults=0.1, side=64), names)
    one = convert_all(tmp_path / "twin", tmp_path / "a", ["--workers", "0", "--shard-samples", "50"])
    other = convert_all(tmp_path / "twin", tmp_path / "b", ["--workers", "2", "--shard-samples", "1024"])
    assert list(one) == names
    assert one == other
    assert len(list((tmp_path / "a/molmoact/shards").glob("*.tar"))) > 1


def test_a_conversion_that_finds_something_else_than_was_planted_is_an_error(tmp_path: Path) -> None:
    write_twin(tmp_path / "twin", TwinSettings(rows=20, pictures=4, side=64), ["molmoact"])
    about = tmp_path / "twin/twin.json"
    about.write_text(about.read_text().replace('"records": 20', '"records": 21'))
    with pytest.raises(RuntimeError, match="molmoact"):
        convert_all(tmp_path / "twin", tmp_path / "out", ["--workers", "0"])


def test_the_commands_write_a_twin_and_convert_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    twin, out = str(tmp_path / "twin"), str(tmp_path / "out/twin")
    few = ["--rows", "12", "--side", "64", "--sources", "robopoint", "hova-epic100"]
    monkeypatch.setattr("sys.argv", ["make.py", twin, "--faults", "0.1", *few])
    make.main()
    monkeypatch.setattr("sys.argv", ["convert_all.py", twin, out, "--workers", "0"])
    converting.main()
    assert re.search(r"^hova-epic100 +[0-9a-f]{32}$", capsys.readouterr().out, flags=re.MULTILINE)
    monkeypatch.setattr("sys.argv", ["make.py", twin, *few])
    with pytest.raises(SystemExit):  # the folder is not empty
        make.main()


def test_points_are_never_the_same_twice() -> None:
    """Two of 100,000 rows of RefSpatial's twin once were, and their conversion rejected them."""

    class Middle(random.Random):
        def uniform(self, a: float, b: float) -> float:
            return (a + b) / 2

    scene = make_scene(0, "refspatial", 0, (96, 72))
    assert scene.points_in((0, 0), Middle(), 3) == [(0.125, 0.167)]
    assert len(scene.points_on(scene.things[0], Middle(), 3)) == 1
