"""An evaluation writes into its own directory only, and deletes only what evaluations write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.errors import UsageError
from pokevla.evaluation.folder import PICTURES, SUMMARY, VIDEOS, clear, refuse_other_folder
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.eval_sections.trials import TrialsConfig
from pokevla.recipe.schema import EvalRecipe


def recipe(output: Path, **spec: Path) -> EvalRecipe:
    trials = TrialsConfig(suite="libero_object", tasks=[3], init_states=(0, 2))
    policy = PolicySpec(name="replay", kind="replay", **(spec or {"dataset": output / "data"}))
    return EvalRecipe(kind="eval", name="judged", output=output, trials=trials, policies=[policy])


def begun(folder: Path, *names: str) -> Path:
    """The directory of an evaluation with some files."""
    for name in ("identity.json", "summary.json", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("name", ["summary.json", "episodes.jsonl", "videos/holiday.mp4", "checkpoints/x"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    path = tmp_path / "judged" / name
    path.parent.mkdir(parents=True)
    path.write_text("thesis")
    with pytest.raises(UsageError, match="judged exists and is not an evaluation"):
        refuse_other_folder(recipe(tmp_path))
    assert [found for found in (tmp_path / "judged").rglob("*") if found.is_file()] == [path]


@pytest.mark.parametrize("read", ["judged", "judged/data", "."])
def test_it_does_not_write_into_what_it_reads(tmp_path: Path, read: str) -> None:
    (tmp_path / read).mkdir(parents=True, exist_ok=True)
    with pytest.raises(UsageError, match=r"The output .*judged (is|contains|lies in) "):
        refuse_other_folder(recipe(tmp_path, dataset=tmp_path / read))


def test_starting_over_deletes_nothing_when_anything_else_lies_there(tmp_path: Path) -> None:
    ours = ("videos/replay-t3-i00.mp4", "pictures/replay-t3-i00.png", "videos/.tmp-a.mp4/a.mp4")
    folder = begun(tmp_path / "judged", *ours, "pictures/thesis.tex")
    with pytest.raises(UsageError, match=r"pictures/thesis.tex does not belong to the evaluation"):
        clear(folder, (SUMMARY, VIDEOS, PICTURES))
    assert (folder / ours[0]).is_file()
    assert json.loads((folder / "summary.json").read_text()) == {}
    (folder / "pictures" / "thesis.tex").unlink()
    (folder / "notes.txt").write_text("mine")
    clear(folder, (SUMMARY, VIDEOS, PICTURES))
    assert sorted(path.name for path in folder.iterdir()) == ["identity.json", "notes.txt"]
