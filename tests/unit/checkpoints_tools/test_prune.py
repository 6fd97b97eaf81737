"""Pruning deletes what the rule says, and never what a run needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from checkpoints_tools.prune import PlannedFolder, plan_prune, prune
from pokevla.cli.main import run as run_command
from pokevla.errors import CheckpointError, UsageError
from pokevla.runs.checkpoints import HEALTHY, MARKER, STATE, list_checkpoints
from pokevla.runs.creation import run_lock

Put = Callable[[int], Path]


def going(plan: Sequence[PlannedFolder]) -> list[int | None]:
    return [item.step for item in plan if item.kept_because is None]


def left(run_dir: Path) -> list[int]:
    return [step for step, _ in list_checkpoints(run_dir)]


def test_the_recipes_own_rule_decides(run_dir: Path, put: Put) -> None:
    for step in (10, 20, 30, 40, 50):
        put(step)
    plan = plan_prune(run_dir)
    assert going(plan) == [10, 20]
    freed = prune(run_dir, plan)
    assert left(run_dir) == [30, 40, 50]
    assert freed == sum(item.size_bytes for item in plan if item.step in (10, 20)) > 0


def test_other_rules_may_be_given_and_milestones_stay(run_dir: Path, put: Put) -> None:
    for step in (10, 20, 30, 40, 50):
        put(step)
    assert going(plan_prune(run_dir, keep_last=1)) == [10, 20, 40]
    assert going(plan_prune(run_dir, keep_last=1, keep_every_steps=20)) == [10]
    assert going(plan_prune(run_dir, keep_last=0, force=True)) == [10, 20, 40, 50]


def test_the_newest_whole_one_stays_even_if_a_damaged_one_is_newer(run_dir: Path, put: Put) -> None:
    for step in (10, 20, 40):
        put(step)
    (put(50) / STATE / "two.pt").unlink()
    plan = plan_prune(run_dir, keep_last=1)
    assert going(plan) == [10, 20]
    kept = {item.step: item.kept_because for item in plan}
    assert kept[40] == "the newest undamaged one"
    with pytest.raises(CheckpointError, match="Step 40 is the newest undamaged one"):
        plan_prune(run_dir, steps=[40])
    assert going(plan_prune(run_dir, steps=[50])) == [50]


def test_the_newest_healthy_one_stays(run_dir: Path, put: Put) -> None:
    for step in (10, 20, 40, 50):
        folder = put(step)
        if step < 40:
            (folder / HEALTHY).write_text("30\n")
    plan = plan_prune(run_dir, keep_last=1)
    assert going(plan) == [10, 40]
    assert {item.step: item.kept_because for item in plan}[20] == "the newest healthy one"


@pytest.mark.parametrize(("step", "why"), [(30, "a milestone"), (50, "the newest undamaged one")])
def test_a_protected_step_is_refused_unless_forced(run_dir: Path, put: Put, step: int, why: str) -> None:
    for number in (10, 30, 50):
        put(number)
    with pytest.raises(CheckpointError, match=f"Step {step} is {why}") as refusal:
        plan_prune(run_dir, steps=[10, step])
    assert "--force" in str(refusal.value)
    prune(run_dir, plan_prune(run_dir, steps=[step], force=True))
    assert left(run_dir) == [number for number in (10, 30, 50) if number != step]


def test_a_step_that_is_not_there_is_refused_with_those_that_are(run_dir: Path, put: Put) -> None:
    put(10)
    with pytest.raises(CheckpointError, match="no checkpoint of step 11"):
        plan_prune(run_dir, steps=[11])


def test_two_rules_at_once_are_refused(run_dir: Path, put: Put) -> None:
    put(10)
    with pytest.raises(UsageError, match="Use only one of them"):
        plan_prune(run_dir, steps=[10], keep_last=1)


def test_remains_of_interrupted_saves_and_deletions_go(run_dir: Path, put: Put) -> None:
    put(50)
    (put(20) / MARKER).unlink()
    put(40).rename(run_dir / "checkpoints" / ".tmp-step-00000040")
    prune(run_dir, plan_prune(run_dir))
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == ["step-00000050"]


def test_the_marker_goes_first(run_dir: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (10, 20, 50):
        put(step)

    def stop(folder: Path, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", stop)
    with pytest.raises(KeyboardInterrupt):
        prune(run_dir, plan_prune(run_dir, keep_last=1))
    assert (run_dir / "checkpoints" / "step-00000010" / STATE / "one.pt").is_file()
    assert left(run_dir) == [20, 50]


def test_a_run_that_is_being_trained_is_left_alone(run_dir: Path, put: Put) -> None:
    for step in (10, 20, 50):
        put(step)
    with run_lock(run_dir), pytest.raises(UsageError, match="in use by another process"):
        prune(run_dir, plan_prune(run_dir, keep_last=1))
    assert left(run_dir) == [10, 20, 50]


def test_a_dry_run_touches_nothing(run_dir: Path, put: Put, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (10, 20, 30, 40, 50):
        put(step)
    before = sorted(run_dir.rglob("*"))
    assert run_command(["ckpt", "prune", str(run_dir), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.count("would be deleted") == 2
    assert "stays (a milestone (every 30))" in out
    assert sorted(run_dir.rglob("*")) == before


def test_what_is_not_ours_is_kept_with_the_checkpoint_it_lies_in(run_dir: Path, put: Put, tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        put(step)
    checkpoints = run_dir / "checkpoints"
    (checkpoints / "step-00000010" / "notes.txt").write_text("the best one")
    (checkpoints / "step-by-step").mkdir()
    (checkpoints / "step-by-step" / "thesis.tex").write_text("ten years of work")
    disk = tmp_path / "disk"
    (checkpoints / "step-00000020").rename(disk)
    (checkpoints / "step-00000020").symlink_to(disk)
    plan = plan_prune(run_dir, keep_last=1, force=True)
    assert going(plan) == [40]  # 30 is a milestone
    assert {item.step: item.kept_because for item in plan}[10] == (
        f"{checkpoints}/step-00000010/notes.txt does not belong to it"
    )
    prune(run_dir, plan)
    assert left(run_dir) == [10, 20, 30, 50]
    assert (disk / MARKER).is_file()
    assert (checkpoints / "step-by-step" / "thesis.tex").is_file()
