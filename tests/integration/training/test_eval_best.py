"""`pokevla eval best` of a finished toy run: its checkpoints are judged, and one of them meets the test."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pokevla.cli.main import run
from pokevla.errors import UsageError
from pokevla.evaluation.choosing.judging import Listeners, choose_checkpoint
from pokevla.parts import ENVIRONMENTS
from pokevla.recipe.load import load_recipe
from pokevla.runs.checkpoints import list_checkpoints
from pokevla.telemetry.jsonl import read_jsonl

RECIPE = """\
kind: eval
name: judged
output: {output}
extensions: [toy_reach]
trials: {{environment: reach, suite: reach, tasks: [0], init_states: [0, 3], settle_steps: 0}}
policies: [{{name: ours, kind: model, run: {run}}}]
validation: {{trials_per_task: 2}}
image_size: 64
actions_per_query: 4
accept_differences: [image_size, fast_rendering, instructions]
workers: 1
videos: 0
"""


@pytest.fixture(scope="module")
def finished(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(whole_run, tmp_path_factory.mktemp("judged") / "run"))


@pytest.fixture
def recipe(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "toy_parts"))  # spawned workers get our path
    path = tmp_path / "judged.yaml"
    path.write_text(RECIPE.format(output=tmp_path / "evaluations", run=finished))
    yield path
    ENVIRONMENTS.pop("reach", None)
    sys.modules.pop("toy_reach", None)  # so that the next recipe adds it again


def test_only_the_best_checkpoint_meets_the_test(
    finished: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [step for step, _ in list_checkpoints(finished)]
    assert len(steps) >= 2
    assert run(["eval", "best", str(finished), str(recipe)]) == 0
    shown = capsys.readouterr().out
    assert f"step {steps[0]}: 1 of 2 validation trials" in shown  # drawn state 0 takes all 6 actions, state 1 one more

    folder = tmp_path / "evaluations" / "judged-checkpoints"
    choice = json.loads((folder / "choice.json").read_text())
    assert [row["step"] for row in choice["checkpoints"]] == steps
    assert choice["chosen"] == steps[0], "the earliest of equals"
    assert [path.name for path in (folder / "models").iterdir()] == [f"step-{steps[0]:08d}"]
    records = read_jsonl(tmp_path / "evaluations" / "judged" / "episodes.jsonl")
    assert [record["steps"] for record in records] == [2, 3, 4], "the test has the shipped states"
    assert (finished / "tensorboard" / "eval" / "judged-checkpoints" / "ours").is_dir()

    seen: list[object] = []
    again = choose_checkpoint(
        load_recipe(recipe).recipe, finished, listeners=Listeners(on_progress=lambda *all_: seen.append(all_))
    )
    assert (again, seen) == (choice, []), "what is judged is not judged again"


def test_other_trials_or_another_run_under_the_same_name_are_refused(
    finished: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["eval", "best", str(finished), str(recipe), "--no-test", "--every", "99", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["checkpoints"]) == 1
    assert not (tmp_path / "evaluations" / "judged").exists()
    assert run(["eval", "best", str(finished), str(recipe), "validation.seed=2", "--no-test", "--every", "99"]) == 2
    assert "was judged on other trials" in capsys.readouterr().err
    other = Path(shutil.copytree(finished, tmp_path / "other"))
    with pytest.raises(UsageError, match="has the checkpoints of"):
        choose_checkpoint(load_recipe(recipe).recipe, other)


def test_following_ends_when_the_training_has(finished: Path, recipe: Path) -> None:
    choice = choose_checkpoint(load_recipe(recipe).recipe, finished, every=99, follow_s=3600.0)
    assert len(choice["checkpoints"]) == 1
