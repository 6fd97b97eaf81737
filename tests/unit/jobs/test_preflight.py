"""Mistakes that must not reach the queue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pokevla.errors import CheckpointError, ClusterError, DataError, PokeVLAError, RecipeError, UsageError
from pokevla.jobs.plan import JobPlan, plan_job
from pokevla.jobs.preflight import file_system, node_local, preflight
from pokevla.jobs.preparation import prepare
from pokevla.jobs.profile import Profile
from pokevla.recipe.dump import dump_recipe
from pokevla.recipe.load import load_recipe, recipe_hash
from pokevla.runs.changes import changed_recipe
from pokevla.runs.checkpoints import MARKER, read_info, write_info
from pokevla.runs.creation import run_lock
from pokevla.runs.directory import read_run_recipe
from slurm.cluster import Partition
from slurm.partition_checks import _partition
from tests.unit.runs.whole_checkpoints import put

PARTITION = Partition("gpu", True, True, 86400, 4, 4, 8)


def check(*plans: JobPlan) -> list[str]:
    return preflight(plans, Profile(), None)


def test_a_good_recipe_passes(load) -> None:
    assert check(plan_job(load(), Profile())) == []


def test_time_limit_shorter_than_a_save_is_refused(load) -> None:
    plan = plan_job(load("resources.time_limit=00:07:00"), Profile())
    with pytest.raises(ClusterError, match="walk: a time limit of 420 s is too short: starting, saving"):
        check(plan)


def test_planned_hours_above_the_limit_are_a_remark(load) -> None:
    plan = replace(plan_job(load(), Profile()), hours=10.0)
    (remark,) = check(plan)
    assert "about 10.0 hours are planned: it will be requeued about" in remark


def test_missing_shard_is_named(load, dataset: Path) -> None:
    (dataset / "shards" / "toy-00000.idx").unlink()
    with pytest.raises(DataError, match=r"toy-00000.idx is missing \(1 of 2 shard and index files"):
        check(plan_job(load(), Profile()))


def make_run(load, *overrides: str) -> Path:
    plan = plan_job(load(*overrides), Profile())
    plan.folder.mkdir(parents=True)
    (plan.folder / "recipe.yaml").write_text(dump_recipe(plan.loaded))
    return plan.folder


def test_what_a_begun_run_may_not_change_is_refused_as_resume_refuses_it(load) -> None:
    run, overrides = make_run(load), ["optim.lr=2e-3", "batch.micro=1", "zero.stage=2"]
    with pytest.raises(RecipeError) as submitted:
        check(plan_job(load(*overrides), Profile()))
    with pytest.raises(RecipeError) as resumed:
        changed_recipe(run, overrides)
    assert str(submitted.value) == f"walk: {resumed.value}"
    assert str(resumed.value).startswith("optim.lr, zero.stage cannot be changed in a run that has started")


def test_begun_run_goes_on_with_what_may_change_and_says_so(load) -> None:
    run = make_run(load)
    plan = plan_job(load("resources.cpu_ranks=1", "batch.micro=1", "log.every_steps=5"), Profile())
    assert check(plan) == [
        f"walk: {run} exists and has no checkpoint yet: it starts from step 0.",
        f"walk: {run} continues with batch.micro 2 -> 1, log.every_steps 10 -> 5, resources.cpu_ranks 2 -> 1.",
    ]


def test_a_damaged_checkpoint_is_a_remark_where_an_earlier_one_is_left(load) -> None:
    run = make_run(load)
    for step in (10, 20):
        folder = put(run, step)
        write_info(folder, replace(read_info(folder), recipe_hash=recipe_hash(load().recipe)))
    (folder / MARKER).write_text("{")
    damaged, continues = check(plan_job(load(), Profile()))
    assert "step-00000020/COMPLETE.json is damaged" in damaged
    assert continues == f"walk: {run} continues from step 10."
    (run / "checkpoints" / "step-00000010" / MARKER).write_text("{")
    with pytest.raises(CheckpointError, match=r"All 2 checkpoints of .* are damaged"):
        check(plan_job(load(), Profile()))


def test_run_submitted_from_another_directory_is_the_same_run(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(load)
    monkeypatch.chdir(tmp_path)
    assert check(plan_job(load("output=runs"), Profile())) == [
        f"walk: {run} exists and has no checkpoint yet: it starts from step 0."
    ]


def test_run_that_failed_before_its_first_checkpoint_begins_again_with_another_recipe(load) -> None:
    run = make_run(load)
    (run / "events.jsonl").write_text('{"event": "failed"}\n')
    plan = plan_job(load("optim.lr=2e-3"), Profile())

    assert [remark for remark in check(plan) if "begins again" in remark]
    prepare(plan)

    assert read_run_recipe(run).optim.lr == 2e-3
    assert read_run_recipe(run.with_name("walk.failed-1")).optim.lr == 1e-3
    (run / "checkpoints" / "step-00000004").mkdir(parents=True)
    with pytest.raises(RecipeError, match=r"optim\.lr cannot be changed"):
        check(plan_job(load(), Profile()))


def test_run_that_is_in_use_on_this_machine_is_refused(load) -> None:
    with run_lock(make_run(load)), pytest.raises(UsageError, match=r"in use by process \d+ on"):
        check(plan_job(load(), Profile()))


def test_folder_that_is_no_run_is_refused(load) -> None:
    plan = plan_job(load(), Profile())
    plan.folder.mkdir(parents=True)
    with pytest.raises(UsageError, match="exists and is not a run directory"):
        check(plan)


def test_two_jobs_of_a_chain_may_not_share_a_run(load) -> None:
    with pytest.raises(UsageError, match="Two jobs of the chain write"):
        check(plan_job(load(), Profile()), plan_job(load(), Profile()))


def test_what_an_earlier_job_makes_may_be_missing(load, tmp_path: Path) -> None:
    first = plan_job(load("name=first"), Profile())
    second = plan_job(load(f"model.vlm={tmp_path}/runs/first"), Profile())
    with pytest.raises(DataError, match=r"model.vlm .*first does not exist"):
        check(second)
    assert check(first, second) == []


def test_all_problems_are_told_at_once(load, dataset: Path) -> None:
    (dataset / "shards" / "toy-00000.tar").unlink()
    with pytest.raises(DataError) as caught:
        check(plan_job(load("resources.time_limit=00:01:00"), Profile()))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["resources.gpus_per_node=16", "batch.global=32"], "has 8.*resources.nodes=2 resources.gpus_per_node=8"),
        (["resources.nodes=8", "resources.cpu_ranks=8", "batch.global=16"], "resources.nodes is 8, .* has 4"),
        (
            ["resources.time_limit=25:00:00"],
            "25:00:00 is above that of partition gpu, 24:00:00: the job",
        ),
    ],
)
def test_job_that_does_not_fit_the_partition_is_refused(load, overrides: list[str], words: str) -> None:
    with pytest.raises(ClusterError, match=words):
        _partition(plan_job(load(*overrides), Profile()), Profile(), [PARTITION])


def test_node_local_folders_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    assert "is below" in (node_local(Path("/tmp/somewhere/run")) or "")
    assert str(tmp_path / "scratch") in (node_local(tmp_path / "scratch" / "run") or "") or "/tmp" in str(tmp_path)
    assert node_local(Path("/dev/shm/run")) is not None
    assert node_local(tmp_path / "scratch" / "run", shared=[tmp_path]) is None


def test_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("disk / ext4 rw 0 0\nmem /fast tmpfs rw 0 0\nnet /net/my\\040lab nfs4 rw 0 0\n")
    assert file_system(Path("/fast/x/y"), mounts) == "tmpfs"
    assert file_system(Path("/net/my lab/z"), mounts) == "nfs4"
    assert file_system(Path("/var"), mounts) == "ext4"


def evaluation(plan: JobPlan, run: Path) -> JobPlan:
    """`plan` for an evaluation in the directory `run`."""
    path = run.parent / "eval.yaml"
    path.write_text(
        f"kind: eval\nname: {run.name}\noutput: {run.parent}\n"
        "trials: {suite: libero_object, tasks: [3]}\npolicies: [{name: a, kind: replay, dataset: nowhere}]\n"
    )
    return replace(plan, loaded=load_recipe(path), folder=run)


def test_the_directory_of_a_run_is_not_given_to_an_evaluation(load, tmp_path: Path) -> None:
    run, plan = make_run(load), plan_job(load(), Profile())
    before = (run / "recipe.yaml").read_text()
    with pytest.raises(PokeVLAError, match=f"{run} is the directory of a job of kind pretrain"):
        check(evaluation(plan, run))
    assert (run / "recipe.yaml").read_text() == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "notes.txt").touch()
    with pytest.raises(PokeVLAError, match="thesis exists and is not that of a job of kind eval"):
        check(evaluation(plan, tmp_path / "thesis"))
