"""An evaluation shared out by task is the same evaluation once it is put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.errors import UsageError
from pokevla.evaluation import parts
from pokevla.evaluation.closed_loop import identity_of, write_json
from pokevla.evaluation.locking import evaluation_lock
from pokevla.evaluation.parts import Part, missing_parts, parts_of, recipe_of_part, run_parts
from pokevla.evaluation.trial_records import TrialRecord, append_record, read_records
from pokevla.recipe.eval_sections.policies import PolicySpec
from pokevla.recipe.eval_sections.trials import TrialsConfig
from pokevla.recipe.schema import EvalRecipe


@pytest.fixture
def recipe(tmp_path: Path) -> EvalRecipe:
    trials = TrialsConfig(suite="libero_object", tasks=[3, 5], init_states=(0, 2))
    policies = [PolicySpec(name="replay", kind="replay", dataset=tmp_path / "data")]
    return EvalRecipe(kind="eval", name="judged", output=tmp_path, trials=trials, policies=policies)


def part(task: int) -> Part:
    return Part("libero_object", (task,))


def finish(recipe: EvalRecipe, task: int) -> None:
    """What `run_closed_loop` leaves of a part: two trials, the first a success with a video."""
    recipe = recipe_of_part(recipe, part(task))
    folder = recipe.output / recipe.name
    folder.mkdir(parents=True, exist_ok=True)
    for state in range(2):
        record = TrialRecord(
            policy="replay", suite="libero_object", task_index=task, task="pick_up", trial=state,
            init_state_index=state, target_shift=None, outcome="failure" if state else "success", steps=100, queries=13,
            seconds=2.0, video=None if state else "videos/replay.mp4", picture="observations/replay.jpg",
        )  # fmt: skip
        append_record(folder / "episodes.jsonl", record)
    write_json(folder / "identity.json", identity_of(recipe))
    write_json(folder / "summary.json", {})


def test_last_part_puts_the_evaluation_together(recipe: EvalRecipe, tmp_path: Path) -> None:
    finish(recipe, 3)
    assert missing_parts(recipe) == ["libero_object-05"]
    folder = recipe_of_part(recipe, part(5))
    with evaluation_lock(folder.output / folder.name):  # another process runs it
        run_parts(recipe, ["libero_object-03"])
    assert not (tmp_path / "judged" / "summary.json").exists()

    finish(recipe, 5)
    run_parts(recipe, ["libero_object-05"])

    assert missing_parts(recipe) == []
    records = read_records(tmp_path / "judged" / "episodes.jsonl")
    assert [(record.task_index, record.init_state_index) for record in records] == [(3, 0), (3, 1), (5, 0), (5, 1)]
    assert records[2].video == "parts/libero_object-05/videos/replay.mp4"
    assert records[2].picture == "parts/libero_object-05/observations/replay.jpg"
    summary = (tmp_path / "judged" / "summary.json").read_text()
    assert '"successes": 2' in summary
    assert '"trials": 4' in summary


def test_who_has_finished_helps_the_others(recipe: EvalRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def run(part_recipe: EvalRecipe, **_: object) -> None:
        begun.append(part_recipe.trials.tasks[0])
        finish(recipe, begun[-1])

    monkeypatch.setattr(parts, "run_closed_loop", run)
    run_parts(recipe, ["libero_object-05"])
    assert begun == [5, 3]
    assert missing_parts(recipe) == []


def test_a_part_whose_process_was_killed_is_taken_over(recipe: EvalRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = recipe_of_part(recipe, part(5))
    holder = evaluation_lock(folder.output / folder.name)
    begun = []

    def run(part_recipe: EvalRecipe, **_: object) -> None:
        begun.append(part_recipe.trials.tasks[0])
        finish(recipe, begun[-1])
        if len(begun) == 1:
            holder.__exit__(None, None, None)  # the other process dies while this one is busy

    monkeypatch.setattr(parts, "run_closed_loop", run)
    holder.__enter__()
    run_parts(recipe, ["libero_object-05"])
    assert begun == [3, 5]
    assert missing_parts(recipe) == []


def test_part_of_other_settings_is_not_taken_for_done(recipe: EvalRecipe) -> None:
    finish(recipe, 3)
    changed = recipe.model_copy(update={"actions_per_query": 4})
    with pytest.raises(UsageError, match="was evaluated with other settings or other weights"):
        missing_parts(changed)


def test_hundreds_of_tasks_are_divided_into_blocks(recipe: EvalRecipe) -> None:
    trials = recipe.trials.model_copy(update={"suite": ("a", "b"), "tasks": list(range(60))})
    many = parts_of(recipe.model_copy(update={"trials": trials}))
    assert [each.name for each in many] == [
        "a-0000-0024", "a-0025-0049", "a-0050-0059", "b-0000-0024", "b-0025-0049", "b-0050-0059",
    ]  # fmt: skip
    assert [task for each in many[:3] for task in each.tasks] == list(range(60))
