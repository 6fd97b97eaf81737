"""`pokevla data mix` from converted sets to datasets: the same bytes in every way, counts that add up, clear errors."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pokevla.cli.main import run
from pokevla.data.dataset import open_dataset
from pokevla.data.inspection import verify_dataset
from pokevla.data.mixing.summary import STEPS, read_summary
from pokevla.data.reader import ShardReader
from pokevla.data.tables.questions import SCHEMA, table_row
from pokevla.data.writer import DatasetWriter, encode_json
from tests.unit.data.mixing.planted import KILLER, SIZES, contents, refused, write_recipe


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {path.name: open_dataset(path).samples.to_pylist() for path in folder.iterdir() if path.is_dir()}


def test_other_shards_and_processes_give_the_same_bytes(sources: Path, mixed: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", sources / "many", tmp_path / "out")
    assert run(["data", "mix", str(recipe), "--workers", "2"]) == 0
    assert contents(tmp_path / "out/vlm") == contents(mixed)
    one, other = read_summary(mixed), read_summary(tmp_path / "out/vlm")
    assert (one.counts, one.strata, one.letters, one.datasets) == (
        other.counts, other.strata, other.letters, other.datasets,
    )  # fmt: skip
    assert one.inputs != other.inputs
    assert not list(tmp_path.glob("**/.unfinished*"))


def test_killed_at_any_time_it_goes_on_to_the_same_bytes(
    sources: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pokevla.data.mixing.mixing.PART_QUESTIONS", 16)
    recipe = write_recipe(tmp_path / "r.yaml", sources / "many", tmp_path / "out")
    command = [sys.executable, "-c", KILLER]
    unfinished = tmp_path / "out/.unfinished-vlm"
    seen = []
    for name, count in (
        ("read_record", 60),
        ("read_record", 280),
        ("read_record", 40),
        ("add_sample", 70),
        ("write_json", 1),
    ):
        words = [*command, name, str(count), str(recipe), "--workers", "0"]
        assert subprocess.run(words, capture_output=True, check=False).returncode == -signal.SIGKILL
        assert not (tmp_path / "out/vlm").exists()
        seen.append(len([path for path in unfinished.iterdir() if path.is_dir() and path.name.isdecimal()]))
    assert seen == sorted(seen)  # what is finished stays
    assert seen[0] < seen[2] < seen[3]
    assert run(["data", "mix", str(recipe), "--workers", "0"]) == 0
    assert contents(tmp_path / "out/vlm") == contents(mixed)
    assert not unfinished.exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["vlm"]


def test_the_datasets_are_whole_and_what_the_summary_says(mixed: Path) -> None:
    summary, rows = read_summary(mixed), rows_of(mixed)
    assert {name: len(its) for name, its in rows.items()} == {"general": 18, "grounding": 40, "reasoning": 50}
    assert {name: len(its) for name, its in rows.items()} == {n: d["samples"] for n, d in summary.datasets.items()}
    for name, facts in summary.datasets.items():
        assert verify_dataset(mixed / name) == facts["samples"]
        assert open_dataset(mixed / name).fingerprint == facts["fingerprint"]
    for row in summary.counts:
        ended = [getattr(row, step) for step in STEPS if step != "left_out"]
        assert row.read == sum(ended) + sum(row.left_out.values())
        its = [r for r in rows[row.category] if (r["source"], r["task"], r["answer_kind"]) ==
               (row.source, row.task, row.answer_kind)]  # fmt: skip
        assert len(its) == row.selected
    assert summary.step_totals()["read"] == SIZES["robopoint"] + 9 * SIZES["refspatial"] + SIZES["llava"]
    assert summary.step_totals()["capped"] == 4 * SIZES["refspatial"]
    assert summary.notes == ["general: the sources have 18 samples of the budget of 30; 12 are missing."]


def test_answers_are_balanced_and_still_right(sources: Path, mixed: Path) -> None:
    rows, summary = rows_of(mixed), read_summary(mixed)
    before = {row["key"]: row for name in SIZES for row in open_dataset(sources / "few" / name).samples.to_pylist()}
    assert Counter(row["answer"] for row in rows["general"]) == {"Yes": 9, "No": 9}
    assert Counter(row["choice"] for row in rows["reasoning"]) == {"A": 25, "B": 25}
    (letters,) = summary.letters
    assert letters.before["A"] > 2 * letters.before["B"]
    assert (letters.after, letters.fixed) == ({"A": 25, "B": 25}, 0)
    for row in rows["reasoning"]:
        words = [each["question"].split(f"({each['choice']}) ")[1].split()[0] for each in (row, before[row["key"]])]
        assert words[0] == words[1]
        assert row["answer"] == row["choice"]
    points = [row["target_points"] for row in rows["grounding"]]
    assert max(map(len, points)) == 10
    thinned = [row for row in rows["grounding"] if len(before[row["key"]]["target_points"]) > 10]
    assert summary.thinned == {"grounding": len(thinned)}
    assert all(point in before[row["key"]]["target_points"] for row in thinned for point in row["target_points"])


def test_samples_of_all_sources_lie_in_each_shard(mixed: Path) -> None:
    shards: dict[int, set[str]] = {}
    for row in rows_of(mixed)["grounding"]:
        shards.setdefault(row["shard"], set()).add(row["source"])
    assert set(map(len, shards.values())) == {2}


def test_what_lists_name_is_left_out_under_its_code(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imagehash")
    pytest.importorskip("datasketch")
    datasets = [str(sources / "few" / name) for name in SIZES]
    assert run(["data", "duplicates", *datasets, "--out", str(tmp_path / "duplicates")]) == 0
    recipe = write_recipe(
        tmp_path / "r.yaml", sources / "few", tmp_path / "out", left_out=[str(tmp_path / "duplicates")], datasets="one"
    )
    capsys.readouterr()
    assert run(["data", "mix", str(recipe), "--workers", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "out/vlm/mixture.json").read_text())
    summary = read_summary(tmp_path / "out/vlm/mixture.json")
    assert summary.left_out_codes() == {"duplicate": 2}
    assert summary.lists[0].codes == summary.left_out_codes()
    taken = {row["key"] for row in rows_of(tmp_path / "out/vlm")["all"]}
    named = pq.read_table(tmp_path / "duplicates/left_out.parquet")["key"].to_pylist()
    assert len(taken) == summary.selected > 50
    assert not taken & set(named)


def test_the_table_shows_ours_beside_the_papers(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", sources / "few", tmp_path / "out", seed=8)
    assert run(["data", "mix", str(recipe), "--workers", "0"]) == 0
    shown = capsys.readouterr()
    table = [line.split() for line in shown.out.splitlines()]
    assert ["general", "40", "18", "30", "665,000"] in table
    assert ["refspatial", "192", "50"] in table
    assert "note: general: the sources have 18 samples" in shown.err
    before = contents(tmp_path / "out/vlm")
    assert run(["data", "mix", str(recipe), "--workers", "0"]) == 3
    assert "already exists" in capsys.readouterr().err
    assert run(["data", "mix", str(recipe), "seed=9", "--workers", "0", "--overwrite"]) == 0
    after = contents(tmp_path / "out/vlm")
    assert after.keys() == before.keys()
    assert after != before
    (tmp_path / "out/vlm/notes.txt").write_text("mine")
    assert run(["data", "mix", str(recipe), "--workers", "0", "--overwrite"]) == 3
    assert "notes.txt does not belong to the mixture" in capsys.readouterr().err
    assert (tmp_path / "out/vlm/notes.txt").read_text() == "mine"


def test_finished_parts_that_do_not_fit_are_not_lost_and_not_used(
    sources: Path,
    mixed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pokevla.data.mixing.mixing.PART_QUESTIONS", 16)
    moving = tmp_path / "sets"
    shutil.copytree(sources / "few", moving)
    recipe = write_recipe(tmp_path / "r.yaml", moving, tmp_path / "out")
    words = [sys.executable, "-c", KILLER, "read_record", "330", str(recipe), "--workers", "0"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == -signal.SIGKILL
    unfinished = tmp_path / "out/.unfinished-vlm"
    before = contents(unfinished)
    assert "1000000/members.bin" in before
    shutil.move(moving / "llava", tmp_path / "llava")
    shutil.copytree(sources / "many/llava", moving / "llava")
    assert "since then the fingerprints of the inputs changed" in refused(capsys, recipe, code=3)
    shutil.rmtree(moving / "llava")
    shutil.move(tmp_path / "llava", moving / "llava")
    other = write_recipe(tmp_path / "other.yaml", moving, tmp_path / "out", answers={"max_points": 3})
    assert "since then the recipe changed. Go on with" in refused(capsys, other, code=3)
    assert contents(unfinished) == before
    assert run(["data", "mix", str(recipe), "--workers", "0"]) == 0
    assert contents(tmp_path / "out/vlm") == contents(mixed)


def test_parts_are_discarded_when_one_says_so(sources: Path, mixed: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", sources / "few", tmp_path / "out", answers={"max_points": 3})
    words = [sys.executable, "-c", KILLER, "read_record", "330", str(recipe), "--workers", "0"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == -signal.SIGKILL
    write_recipe(recipe, sources / "few", tmp_path / "out")
    scanned = tmp_path / "out/.unfinished-vlm/000000/samples.arrow"
    assert scanned.exists()
    assert run(["data", "mix", str(recipe), "--workers", "0", "--restart"]) == 0
    assert contents(tmp_path / "out/vlm") == contents(mixed)


def test_a_mixture_is_planned(sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", sources / "few", tmp_path / "out")
    assert run(["plan", str(recipe), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [source["samples"] for source in plan["sources"]] == [48, 216, 40]
    assert plan["disk_bytes"] == pytest.approx(
        120 * sum(source["size_bytes"] for source in plan["sources"]) / 304, rel=1e-6
    )
    assert run(["submit", str(recipe)]) == 2
    assert "pokevla data mix" in capsys.readouterr().err


def test_all_members_of_a_sample_are_kept_and_samples_without_an_image_are_taken(tmp_path: Path) -> None:
    shared = {"source": "own", "subset": "a", "category": "grounding", "task": "object_point", "split": "train",
              "width": 8, "height": 8, "answer_kind": "point", "question": "Where?", "answer": "[(0.500, 0.500)]",
              "target": {"points": [[0.5, 0.5]], "boxes": [], "choice": None}}  # fmt: skip
    others = [{"jpg": b"picture", "mask.png": b"mask"}, {}]
    with DatasetWriter(tmp_path / "own", group="own", samples=SCHEMA) as writer:
        for number, members in enumerate(others):
            record = {**shared, "key": f"own-{number}"}
            writer.add_sample(record["key"], {"json": encode_json(record), **members}, table_row(record))
        writer.finish({"statistics": None, "sources": []})
    recipe = write_recipe(
        tmp_path / "r.yaml", tmp_path, tmp_path / "out",
        sources=[{"path": str(tmp_path / "own"), "caps": [{"by": "group", "at_most": 1}]}],
        categories={"grounding": {"budget": 2}},
    )  # fmt: skip
    assert run(["data", "mix", str(recipe), "--workers", "0"]) == 0
    dataset = open_dataset(tmp_path / "out/vlm/grounding")
    reader = ShardReader(dataset)
    read = {dataset.rows.text("key", row): reader.read(row) for row in range(2)}
    reader.close()
    assert {key: {name: each[name] for name in each if name != "json"} for key, each in read.items()} == {
        "own-0": others[0],
        "own-1": others[1],
    }
