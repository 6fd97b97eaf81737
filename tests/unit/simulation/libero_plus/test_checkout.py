"""Checkouts: what is accepted and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.errors import EnvironmentSetupError, UsageError
from pokevla.simulation.benchmark import TaskSource
from pokevla.simulation.libero_plus.availability import unavailable_tasks
from pokevla.simulation.libero_plus.benchmark import LIBERO_PLUS
from pokevla.simulation.libero_plus.checkout import NUM_TASKS, open_checkout
from pokevla.simulation.libero_plus.tasks import initial_states, plus_task
from tests.libero_plus import (
    ADDED,
    BACKGROUND,
    CAMERA,
    LANGUAGE,
    LIGHT,
    MOVED,
    ROBOT,
    copied_sample,
    official_checkout,
    sample_source,
)


def test_a_folder_without_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentSetupError, match=r"holds no task_classification\.json") as caught:
        open_checkout(tmp_path)
    assert "git clone" in caught.value.remedy


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = copied_sample(tmp_path)  # other tests of this process have SAMPLE opened as if it were complete
    with pytest.raises(EnvironmentSetupError, match=r"another version: it lists libero_spatial 1, .*known is .*2,402"):
        open_checkout(folder)


@pytest.mark.parametrize("text", ["[1", "{}", "[]", '{"libero_spatial": 3}', "[" * 100_000])
def test_a_damaged_table_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "task_classification.json").write_text(text, encoding="utf-8")
    with pytest.raises(EnvironmentSetupError):
        open_checkout(tmp_path)


def test_as_many_other_tasks_are_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied_sample(tmp_path)
    sample_source(monkeypatch)
    table = json.loads((folder / "task_classification.json").read_text(encoding="utf-8"))
    table["libero_goal"][0]["difficulty_level"] = 1
    (folder / "task_classification.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(EnvironmentSetupError, match="as many tasks as the known one, but others"):
        open_checkout(folder)


def test_missing_files_are_counted_and_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied_sample(tmp_path)
    sample_source(monkeypatch)
    missing = next(folder.rglob("*level3_sample1.pruned_init"))
    missing.unlink()
    with pytest.raises(EnvironmentSetupError, match=f"1 files are missing, such as .*{missing.name}"):
        open_checkout(folder)


def test_tasks_carry_perturbation_level_files_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    source = sample_source(monkeypatch)
    told = "pick up the cream cheese and place it in the basket"

    camera, language, moved = (plus_task(source, "libero_object", index) for index in (CAMERA, LANGUAGE, MOVED))

    assert (camera.perturbation, camera.level, camera.num_init_states) == ("Camera Viewpoints", 1, 50)
    assert (camera.instruction, camera.bddl_file) == (told, camera.base.bddl_file)
    assert language.instruction != told
    assert language.bddl_file.name.endswith("language_3.bddl")
    assert (moved.perturbation, moved.level, moved.num_init_states) == ("Objects Layout", 5, 1)
    assert initial_states(moved).shape == (1, initial_states(camera).shape[1])
    assert camera.objects_of_interest == ("cream_cheese_1", "basket_1")


def test_the_wording_is_the_users_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {
        instructions: plus_task(
            sample_source(monkeypatch, instructions=instructions), "libero_object", ROBOT
        ).instruction
        for instructions in ("clean", "filename", "bddl")
    }
    assert words["clean"] == "pick up the cream cheese and place it in the basket"
    assert words["filename"] == f"{words['clean']} view 0 0 100 0 0 initstate 42"
    assert words["bddl"] == "pick the cream cheese and place it in the basket"
    of_language = {
        plus_task(sample_source(monkeypatch, instructions=name), "libero_object", LANGUAGE).instruction
        for name in words
    }
    assert len(of_language) == 1


def test_unknown_tasks_suites_and_no_checkout_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source = sample_source(monkeypatch)
    with pytest.raises(UsageError, match="no task 8"):
        plus_task(source, "libero_object", 8)
    with pytest.raises(UsageError, match="no suite libero_90"):
        plus_task(source, "libero_90", 0)
    with pytest.raises(EnvironmentSetupError, match=r"trials\.libero_plus is not set"):
        LIBERO_PLUS.get_task("libero_object", 0)


def test_tasks_that_cannot_run_are_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reasons = unavailable_tasks(sample_source(monkeypatch), "libero_object")
    assert set(reasons) == {LIGHT, BACKGROUND, ADDED}
    assert all("the checkout has no" in reason for reason in reasons.values())
    assert unavailable_tasks(sample_source(monkeypatch), "libero_goal") == {}

    empty = sample_source(monkeypatch, assets=tmp_path)
    with pytest.raises(EnvironmentSetupError, match="is no assets folder of LIBERO-Plus: it has no scenes"):
        unavailable_tasks(empty, "libero_object")


def test_the_official_checkout_is_complete_and_without_assets_7045_tasks_run() -> None:
    source = TaskSource(checkout=official_checkout())
    runs = {suite: count - len(unavailable_tasks(source, suite)) for suite, count in NUM_TASKS.items()}
    native = sum(
        row.parts.kind in ("camera", "robot", "language", "noise", "moved")
        for suite in NUM_TASKS
        for row in open_checkout(official_checkout().resolve()).rows[suite]
    )
    assert native == 6_983
    has_code = (official_checkout() / "libero/libero/envs").is_dir()
    assert sum(runs.values()) == (7_045 if has_code else native)
