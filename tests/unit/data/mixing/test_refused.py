"""Inputs, lists and summaries that do not fit or are damaged: clear errors, and nothing is written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.mixing.summary import read_summary
from pokevla.data.screening.left_out import SCHEMA as LIST_SCHEMA
from pokevla.errors import DataError
from tests.unit.data.mixing.planted import SIZES, refused, write_recipe


def test_inputs_that_do_not_fit_are_refused(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few, out = sources / "few", tmp_path / "out"
    recipe = tmp_path / "r.yaml"

    def wrong(code: int, **fields: Any) -> str:
        return refused(capsys, write_recipe(recipe, few, out, **fields), code=code)

    one = {"path": str(few / "llava")}
    assert "sources.0" in wrong(3, sources=[{"path": str(tmp_path / "absent")}])
    assert "is not a dataset" in wrong(3, sources=[{"path": str(tmp_path / "absent")}])
    assert "sources.1: " in wrong(2, sources=[one, one])
    assert f"is in {few / 'llava'} and in" in wrong(3, sources=[one, {"path": str(sources / "many/llava")}])
    budget = {"general": {"budget": 30}}
    assert "general has 18 of 30" in wrong(2, sources=[one], categories=budget, short="stop")
    assert "Nothing is left of the 40 samples" in wrong(3, sources=[one], categories={"affordance": {"budget": 3}})
    assert "names grounding, which has no budget" in wrong(
        2, sources=[{**one, "categories": ["grounding"]}], categories=budget
    )
    assert "at_most names the task questions" not in wrong(2, sources=[{**one, "at_most": {"questions": -1}}])
    assert refused(capsys, write_recipe(recipe, few, few.parent, name="few"), code=2).startswith("error: The output")
    robot = tmp_path / "robot"
    shutil.copytree(few / "llava", robot)
    (robot / "dataset.json").write_text(
        (robot / "dataset.json").read_text().replace('"kind": "vlm"', '"kind": "robot"')
    )
    assert "sources.0: " in wrong(3, sources=[{"path": str(robot)}])  # its checksum differs
    assert not (out / "vlm").exists()


def written_list(folder: Path, datasets: list[Path], rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    covered = {str(path): {"fingerprint": open_dataset(path).fingerprint} for path in datasets}
    (folder / "report.json").write_text(json.dumps({"kind": "duplicates", "datasets": covered}))
    pq.write_table(pa.Table.from_pylist(rows, LIST_SCHEMA), folder / "left_out.parquet")
    return folder


def test_lists_that_do_not_fit_are_refused(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = sources / "few"
    all_three = [few / name for name in SIZES]
    row = {"dataset": "x", "fingerprint": open_dataset(few / "llava").fingerprint, "row": 3, "because": "",
           "key": "llava-mix665k-00000003", "code": "duplicate"}  # fmt: skip

    def wrong(name: str, datasets: list[Path], rows: list[dict[str, Any]]) -> str:
        folder = written_list(tmp_path / name, datasets, rows)
        return refused(capsys, write_recipe(tmp_path / "r.yaml", few, tmp_path / "out", left_out=[str(folder)]), code=3)

    assert f"is not about {few / 'llava'}" in wrong("uncovered", all_three[:2], [row])
    assert "leaves out row 3" in wrong("other", all_three, [{**row, "key": "llava-mix665k-00000004"}])
    assert "there is no such sample" in wrong("beyond", all_three, [{**row, "row": 40}])
    assert "unknown code 'dull'" in wrong("code", all_three, [{**row, "code": "dull"}])
    (tmp_path / "uncovered/report.json").unlink()
    recipe = write_recipe(tmp_path / "r.yaml", few, tmp_path / "out", left_out=[str(tmp_path / "uncovered")])
    assert "report.json" in refused(capsys, recipe, code=3)
    assert run(["validate", str(recipe)]) == 3
    fine = written_list(tmp_path / "fine", all_three, [row, {**row, "code": "conflict"}])
    recipe = write_recipe(tmp_path / "r.yaml", few, tmp_path / "out", left_out=[str(fine)])
    assert run(["validate", str(recipe)]) == 0
    assert run(["data", "mix", str(recipe), "--workers", "0"]) == 0
    assert read_summary(tmp_path / "out/vlm").left_out_codes() == {"duplicate": 1}


def test_a_damaged_sample_is_named_and_nothing_is_written(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moving = tmp_path / "sets"
    shutil.copytree(sources / "few", moving)
    (shard,) = (moving / "llava/shards").glob("*.tar")
    content = bytearray(shard.read_bytes())
    place = content.index(b"Is it 5?")
    content[place] ^= 1
    shard.write_bytes(content)
    error = refused(capsys, write_recipe(tmp_path / "r.yaml", moving, tmp_path / "out"), code=3)
    assert "llava-mix665k-00000005" in error
    assert not (tmp_path / "out/vlm").exists()


def test_a_damaged_summary_is_an_error(mixed: Path, tmp_path: Path) -> None:
    content = json.loads((mixed / "mixture.json").read_text())
    for changed, text in (({"schema_version": 9}, "schema version 9"), ({"counts": [{}]}, "is damaged")):
        (tmp_path / "mixture.json").write_text(json.dumps({**content, **changed}))
        with pytest.raises(DataError, match=text):
            read_summary(tmp_path)
