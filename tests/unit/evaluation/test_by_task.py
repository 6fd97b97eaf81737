"""An evaluation shared out by task is the same evaluation once it is put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.errors import UsageError
from pokevla.evaluation.by_task import missing_tasks, recipe_of_task, run_tasks
from pokevla.evaluation.closed_loop import identity_of, write_json
from pokevla.evaluation.trial_records import TrialRecord, append_record, read_records
from pokevla.recipe.schema import EvalRecipe, PolicySpec, TrialsConfig


@pytest.fixture
def recipe(tmp_path: Path) -> EvalRecipe:
    trials = TrialsConfig(suite="libero_object", tasks=[3, 5], init_states=(0, 2))
    policies = [PolicySpec(name="replay", kind="replay", dataset=tmp_path / "data")]
    return EvalRecipe(kind="eval", name="judged", output=tmp_path, trials=trials, policies=policies)


def finish(part: EvalRecipe, task: int) -> None:
    """What `run_closed_loop` leaves of a part: two trials, the first a success with a video."""
    folder = part.output / part.name
    folder.mkdir(parents=True, exist_ok=True)
    for state in range(2):
        record = TrialRecord(
            policy="replay", suite="libero_object", task_index=task, task="pick_up", trial=state,
            init_state_index=state, target_shift=None, outcome="failure" if state else "success", steps=100, queries=13,
            seconds=2.0, video=None if state else "videos/replay.mp4",
        )  # fmt: skip
        append_record(folder / "episodes.jsonl", record)
    write_json(folder / "identity.json", identity_of(part))
    write_json(folder / "summary.json", {})


def test_last_part_puts_the_evaluation_together(recipe: EvalRecipe, tmp_path: Path) -> None:
    finish(recipe_of_task(recipe, 3), 3)
    assert missing_tasks(recipe) == [5]
    run_tasks(recipe, [3])
    assert not (tmp_path / "judged" / "summary.json").exists()

    finish(recipe_of_task(recipe, 5), 5)
    run_tasks(recipe, [5])

    assert missing_tasks(recipe) == []
    records = read_records(tmp_path / "judged" / "episodes.jsonl")
    assert [(record.task_index, record.init_state_index) for record in records] == [(3, 0), (3, 1), (5, 0), (5, 1)]
    assert records[2].video == "parts/task-05/videos/replay.mp4"
    summary = (tmp_path / "judged" / "summary.json").read_text()
    assert '"successes": 2' in summary
    assert '"trials": 4' in summary


def test_part_of_other_settings_is_not_taken_for_done(recipe: EvalRecipe) -> None:
    finish(recipe_of_task(recipe, 3), 3)
    changed = recipe.model_copy(update={"actions_per_query": 4})
    with pytest.raises(UsageError, match="was evaluated with other settings or other weights"):
        missing_tasks(changed)
