"""The recipes of the whole curation, and its comparison of mixtures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import curation
from benchmarks.twin.aim import aim_of
from benchmarks.twin.baseline import GRID, judge_constant, most_covered
from benchmarks.twin.make import write_source
from benchmarks.twin.plan import TwinSettings
from benchmarks.twin.recipes import (
    LEFT_OUT_OF_TABLE,
    QUESTIONS,
    asked_for,
    mixture_recipe,
    pretrain_recipe,
    write_where2place,
)
from pokevla.evaluation.vlm_benchmarks.reading.where2place import read_where2place
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import MixtureRecipe, PretrainRecipe
from tests.unit.data.curation.published import convert


def test_the_recipes_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "mixture.yaml").write_text(mixture_recipe(tmp_path, 300))
    mixture = load_recipe(tmp_path / "mixture.yaml").recipe
    assert isinstance(mixture, MixtureRecipe)
    assert len(mixture.sources) == 10
    for name, left_out in LEFT_OUT_OF_TABLE.items():
        (tmp_path / "train.yaml").write_text(pretrain_recipe(tmp_path, name, left_out, 20))
        recipe = load_recipe(tmp_path / "train.yaml").recipe
        assert isinstance(recipe, PretrainRecipe)
        trained_on = {Path(path).name for path in recipe.dataset_paths}
        assert trained_on == {"general", "grounding", "affordance", "reasoning"} - {left_out}


def test_the_questions_are_in_the_published_layout(tmp_path: Path) -> None:
    (part,) = read_where2place(write_where2place(tmp_path / "set", 3), ["point"], "pokevla")
    items = list(part.read([0, QUESTIONS - 1]))
    for item in items:
        assert item.mask is not None
        assert 0.005 < item.mask.mean() < 0.1
        # The scorer takes every picture for one of this size (RoboPoint, robopoint/eval/summarize_vqa.py).
        assert np.asarray(item.image).shape[:2] == item.mask.shape == (480, 640)
    assert items[0].question != items[1].question


def test_the_constant_answer_is_the_point_in_the_most_boxes() -> None:
    point = most_covered([(0.1, 0.1, 0.5, 0.5), (0.4, 0.2, 0.9, 0.9), (0.45, 0.0, 0.6, 0.22), (0.0, 0.8, 1.0, 1.0)])
    assert point == pytest.approx((0.45 + 0.5 / GRID, 0.2 + 0.5 / GRID))
    with pytest.raises(ValueError, match="no boxes"):
        most_covered([])


def test_the_constant_answer_is_judged_by_the_scorer_of_the_models(tmp_path: Path) -> None:
    write_source("roborefit", tmp_path / "twin", TwinSettings(rows=40, side=128))
    convert("roborefit", tmp_path / "twin/roborefit", tmp_path / "out")
    benchmark = write_where2place(tmp_path / "set", 3)
    found = curation.score_row("constant", judge_constant(tmp_path / "out", benchmark, tmp_path / "judged"))
    answers = [json.loads(line) for line in (tmp_path / "judged/answers.jsonl").read_text().splitlines()]
    assert len(answers) == QUESTIONS
    ((reply, inside),) = {(each["reply"], sum(other["official"] for other in answers)) for each in answers}
    assert reply.startswith("[(0.")
    assert found["value"] == pytest.approx(inside / QUESTIONS)
    assert found["value"] <= found["best_constant"] + 0.01
    assert found["failures"] == 0


def test_aim_tells_the_named_thing_from_any_thing(tmp_path: Path) -> None:
    lines, chance = [], []
    for number, reply in enumerate(("named", "other", "below the named", "none")):
        scene, thing, _ = asked_for(3, number)
        other = next(each for each in scene.things if each != thing)
        pixels = {
            "named": [(thing.x, thing.y)],
            "other": [(other.x, other.y)],
            "below the named": [(thing.x, thing.box[3] + 1)],
            "none": [],
        }[reply]
        points = [(x / scene.width, y / scene.height) for x, y in pixels]
        lines.append(json.dumps({"id": str(number), "points": points}))
        chance.append(1 / len(scene.things))
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    found = aim_of(tmp_path / "answers.jsonl", 3)
    assert found == {"on_a_thing": 0.5, "named_nearest": 0.5, "by_chance": pytest.approx(sum(chance) / 4)}


def test_a_file_that_differs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(work: Path, workers: int, *_options: object) -> int:
        shards = work / "build/mixed/vlm/general/shards"
        shards.mkdir(parents=True)
        (shards / "a-00000.tar").write_bytes(b"same" if workers == 2 else b"other")
        (work / "build/mixed/vlm/mixture.json").write_text(str(workers))
        return 0

    monkeypatch.setattr(curation, "build", build)
    monkeypatch.setattr(curation, "write_twin", lambda root, _settings, rows: root.mkdir())
    again, killed = curation.build_rows(tmp_path, 3, 1, 0)
    assert (again["name"], again["value"]) == ("build/again", 1)
    assert (killed["name"], killed["value"]) == ("build/killed", 0)


def test_a_killed_call_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []

    def build(work: Path, workers: int, *_options: object) -> int:
        built.append(workers)
        if built == [2, 0]:
            raise KeyboardInterrupt
        (work / "build/mixed/vlm").mkdir(parents=True, exist_ok=True)
        return 0

    monkeypatch.setattr(curation, "build", build)
    monkeypatch.setattr(curation, "write_twin", lambda root, _settings, rows: root.mkdir())
    with pytest.raises(KeyboardInterrupt):
        curation.build_rows(tmp_path, 3, 0, 0)
    (again,) = curation.build_rows(tmp_path, 3, 0, 0)
    assert built == [2, 0, 0]
    assert again["value"] == 0
    curation.build_rows(tmp_path, 3, 0, 0)
    assert len(built) == 3


def test_what_is_trained_and_judged_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"official": {"score": 0.25}, "chance": 0.05, "best_constant": 0.1, "failure_rate": 0.0}
    called: list[str] = []

    def run_pokevla(words: list[str]) -> str:
        called.append(f"{words[0]} {Path(words[-1]).stem}")
        if words[0] == "eval":
            write_summary(Path(words[-1]))
        else:
            (tmp_path / "runs" / Path(words[-1]).stem / "checkpoints/step-00000001").mkdir(parents=True, exist_ok=True)
        if called == ["train full", "eval full", "train without_grounding"]:
            raise KeyboardInterrupt
        return ""

    def write_summary(out: Path) -> None:
        out.mkdir(parents=True)
        (out / "summary.json").write_text(json.dumps({"parts": {"point": part}}))
        (out / "answers.jsonl").write_text(json.dumps({"id": "0", "points": []}))

    monkeypatch.setattr(curation, "run_pokevla", run_pokevla)
    for name in ("constant", "untrained"):
        write_summary(tmp_path / "judged" / name)
    with pytest.raises(KeyboardInterrupt):
        curation.learnt_rows(tmp_path, 5, 0)
    rows = curation.learnt_rows(tmp_path, 5, 0)
    assert [each["value"] for each in rows] == [0.25] * 6
    assert called[:3] == ["train full", "eval full", "train without_grounding"]  # then it was killed
    assert called[3:5] == ["resume without_grounding", "eval without_grounding"]


def test_a_folder_of_other_options_is_refused(tmp_path: Path) -> None:
    curation.claim(tmp_path, {"rows": 3})
    curation.claim(tmp_path, {"rows": 3})
    with pytest.raises(SystemExit, match=r"made with \{'rows': 3\}, not \{'rows': 4\}"):
        curation.claim(tmp_path, {"rows": 4})
    (tmp_path / "options.json").unlink()
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SystemExit, match="not empty"):
        curation.claim(tmp_path, {"rows": 3})
