"""Chains whose first job fails, jobs that are stopped, and what the login node refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from pokevla.cli.main import run as run_command
from pokevla.errors import ClusterError
from pokevla.jobs.plan import plan_job
from pokevla.jobs.preflight import preflight
from pokevla.jobs.profile import Profile
from pokevla.jobs.record import read_jobs
from pokevla.jobs.stopping import stop_run
from pokevla.jobs.tracking import explain, job_state
from pokevla.recipe.load import load_recipe
from slurm.sandbox.sandbox import Sandbox
from slurm.slurm_launcher import SLURM
from slurm.submit import check_with_slurm, submit_chain

pytestmark = pytest.mark.usefixtures("sandbox")
CACHE = """\
kind: cache
name: damaged
output: {shared}/runs
dataset: {shared}/damaged
cache: {{root: {shared}/damaged-cache, sam: {{preset: tiny}}, vggt: {{preset: tiny}}}}
"""


def test_failed_job_cancels_the_one_behind_it_which_says_why(
    walk, seen: Profile, toys: ModuleType, shared: Path, wait_until: Callable[..., None]
) -> None:
    dataset = toys.write_toy_dataset(shared / "damaged")
    for shard in (dataset / "shards").glob("*.tar"):
        shard.write_bytes(shard.read_bytes()[:2000])
    (shared / "damaged.yaml").write_text(CACHE.format(shared=shared))
    first = plan_job(load_recipe(shared / "damaged.yaml"), seen)
    chain = submit_chain([first, plan_job(walk("name=behind"), seen)], seen, "")
    wait_until("the chain ends", lambda: not any(job_state(job.job_id).is_active for job in chain))
    parent, child = (job_state(job.job_id) for job in chain)
    assert (parent.state, parent.exit_code) == ("FAILED", 3)
    assert child.state == "CANCELLED"
    why = explain(shared / "runs" / "behind") or ""
    assert f"it waited for job {chain[0].job_id} (damaged), which ended as FAILED" in why
    assert ".tar" in (explain(shared / "runs" / "damaged") or "")


def test_waiting_job_is_cancelled_by_stop(walk, seen: Profile, sandbox: Sandbox, shared: Path) -> None:
    profile = seen.model_copy(update={"sbatch": {"begin": "now+1hour"}})
    (job,) = submit_chain([plan_job(walk("name=waiting"), profile)], profile, "")
    assert stop_run(shared / "runs" / "waiting") == [f"job {job.job_id} (PENDING (BeginTime)) was cancelled"]
    assert job_state(job.job_id).state == "CANCELLED"


def test_chain_that_slurm_refuses_in_part_is_taken_back_as_a_whole(walk, seen: Profile, shared: Path) -> None:
    good = seen.model_copy(update={"sbatch": {"begin": "now+1hour"}})
    too_much = ("name=refused", "resources.gpus_per_node=16", "batch.global=32")  # a node has 8
    plans = [plan_job(walk("name=taken-back"), good), plan_job(walk(*too_much), good)]
    with pytest.raises(ClusterError, match=r"refused: Slurm refuses this job: .*[Nn]ode"):
        submit_chain(plans, good, "")
    (job,) = read_jobs(shared / "runs" / "taken-back")
    assert job_state(job.job_id).state == "CANCELLED"


@pytest.mark.parametrize(
    ("overrides", "profile", "words"),
    [
        ([], {"partition": "trian"}, "no partition 'trian'. Did you mean train"),
        (["resources.time_limit=02:00:00"], {"partition": "short"}, "above that of partition short"),
        (["resources.nodes=3", "resources.cpu_ranks=3", "batch.global=6"], {}, "resources.nodes is 3, .* has 2"),
        ([], {"shared": ()}, "the run directory is in .*, which is below /tmp: other machines do not see it"),
    ],
)
def test_login_node_refuses_what_the_cluster_cannot_do(
    walk, seen: Profile, overrides: list[str], profile: dict, words: str, monkeypatch: pytest.MonkeyPatch, shared: Path
) -> None:
    monkeypatch.setattr("pokevla.jobs.preflight.NODE_LOCAL_FOLDERS", ("/tmp", str(shared)))
    changed = seen.model_copy(update=profile)
    with pytest.raises(ClusterError, match=words):
        preflight([plan_job(walk("name=never", *overrides), changed)], changed, SLURM)


def test_array_and_partitions_are_judged_by_the_cluster_they_go_to(walk, seen: Profile) -> None:
    lists = seen.model_copy(update={"partition": "short,train"})
    plan = plan_job(walk("name=never", "resources.time_limit=02:00:00"), lists)
    preflight([plan], lists, SLURM)  # too long for short alone
    assert "to start at" in check_with_slurm(plan, lists)
    wide = replace(plan, pieces=tuple((str(number),) for number in range(1002)))
    with pytest.raises(ClusterError, match="of 1002 tasks is above the cluster's MaxArraySize, 1001"):
        preflight([wide], lists, SLURM)


def test_slurm_itself_judges_the_rest_before_anything_is_queued(walk, seen: Profile) -> None:
    plan = plan_job(walk("name=never"), seen)
    assert "to start at" in check_with_slurm(plan, seen)
    strange = seen.model_copy(update={"constraint": "gold"})
    with pytest.raises(ClusterError, match=r"never: Slurm would refuse this job: .*[Ff]eature"):
        check_with_slurm(plan, strange)


def test_doctor_sees_a_job_run_and_come_back(
    sandbox: Sandbox, profile: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shared)
    assert run_command(["doctor", "slurm", "--profile", str(profile)]) == 0
    output = capsys.readouterr().out
    assert "partition train" in output
    assert "none (Slurm accounting storage is disabled)" in output
    assert "the job ran again and ended" in output
