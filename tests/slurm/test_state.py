"""What is known of jobs, without accounting and with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pokevla.errors import ClusterError
from pokevla.jobs.plan import plan_job
from pokevla.jobs.profile import Profile
from pokevla.jobs.tracking import job_state, job_states
from pokevla.recipe.load import LoadedRecipe
from slurm.cluster import partitions
from slurm.limits import require_allowance
from slurm.sandbox.sandbox import Sandbox, slurm_sandbox
from slurm.slurm_launcher import SLURM
from slurm.submit import check_with_slurm

Submit = Callable[..., str]


@pytest.fixture
def submit(sandbox: Sandbox, wait_until: Callable[..., None]) -> Iterator[Submit]:
    """Queue a shell command; its job id. Nothing of it is left in the queue for the tests that follow."""
    queued: list[str] = []

    def queue(command: str, *flags: str) -> str:
        words = ("sbatch", "--parsable", "--output=/dev/null", *flags, f"--wrap={command}")
        queued.append(sandbox.run(*words).strip())
        return queued[-1]

    yield queue
    for job in queued:
        if job_state(job).state == "RUNNING":  # a shell may take its time with SIGTERM
            sandbox.run("scancel", "--signal=KILL", "--full", job)
        sandbox.run("scancel", job)
    wait_until("the queue is empty", lambda: not any(job_state(job).is_active for job in queued))


def test_job_is_known_from_its_queue_to_its_end(submit: Submit, wait_until: Callable[..., None]) -> None:
    waiting = submit("true", "--begin=now+1hour")
    assert job_state(waiting).describe() == "PENDING (BeginTime)"
    running = submit("sleep 300")
    wait_until("the job runs", lambda: job_state(running).state == "RUNNING")
    assert job_state(running).nodes == "n1"
    failed = submit("exit 3")
    wait_until("the job fails", lambda: not job_state(failed).is_active)
    assert job_state(failed).describe() == "FAILED (NonZeroExitCode), exit code 3"
    assert job_state(failed).source == "scontrol"


def test_cancelled_and_unknown_jobs_are_told_apart(sandbox: Sandbox, submit: Submit) -> None:
    job = submit("true", "--begin=now+1hour")
    sandbox.run("scancel", job)
    states = job_states([job, "999999"])
    assert states[job].state == "CANCELLED"
    assert states[job].has_failed
    assert states["999999"].state == "UNKNOWN"
    assert not states["999999"].has_failed


def test_array_is_one_job_with_counts(submit: Submit, wait_until: Callable[..., None]) -> None:
    array = submit('test "$SLURM_ARRAY_TASK_ID" = 0', "--array=0-2")
    wait_until("all tasks end", lambda: not job_state(array).is_active)
    state = job_state(array)
    assert (state.state, state.exit_code) == ("FAILED", 1)
    assert "1 of 3 known tasks done" in state.reason
    assert job_state(f"{array}_0").state == "COMPLETED"


def test_partitions_are_those_of_the_cluster(sandbox: Sandbox) -> None:
    by_name = {partition.name: partition for partition in partitions()}
    assert [name for name, partition in by_name.items() if partition.is_default] == ["train"]
    assert (by_name["train"].nodes, by_name["train"].gpus_per_node, by_name["train"].time_limit_s) == (2, 8, None)
    assert by_name["short"].time_limit_s == 600


@pytest.fixture(scope="module")
def accounting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A cluster with accounting, whose controller forgets a job some seconds after its end."""
    folder = tmp_path_factory.mktemp("accounting")
    with slurm_sandbox(folder, nodes=1, accounting=True, remember_s=2) as running, running.active():
        yield running


def test_accounting_remembers_what_the_controller_has_forgotten(
    accounting: Sandbox, wait_until: Callable[..., None]
) -> None:
    def submit(command: str) -> str:
        return accounting.run("sbatch", "--parsable", "--output=/dev/null", f"--wrap={command}").strip()

    good, bad = submit("true"), submit("exit 4")
    wait_until("the controller forgets", lambda: {job_state(job).source for job in (good, bad)} == {"sacct"})
    assert job_state(good).state == "COMPLETED"
    assert job_state(bad).describe() == "FAILED, exit code 4"
    assert job_state("999999").state == "UNKNOWN"


@pytest.fixture
def two_jobs_at_most(accounting: Sandbox) -> Iterator[None]:
    """As an administrator limits a user."""
    limit = ("sacctmgr", "--immediate", "modify", "user", "where", f"name={accounting.config.user}", "set")
    accounting.run(*limit, "MaxSubmitJobs=2")
    yield
    accounting.run(*limit, "MaxSubmitJobs=-1")


def test_limit_of_an_account_is_found_before_anything_is_queued(
    two_jobs_at_most: None, accounting: Sandbox, walk: Callable[..., LoadedRecipe]
) -> None:
    profile = Profile(cpus_per_task=1, account="robots")
    plans = [plan_job(walk(f"name=walk{number}"), profile) for number in range(3)]
    assert require_allowance(plans[:2], profile) == []
    assert require_allowance(plans[:1], Profile(cpus_per_task=1)) == [], "robots is the user's default"
    with pytest.raises(ClusterError, match="robots allows 2 jobs in the queue; 0 are there, and this would add 3"):
        SLURM.submit(plans, profile, "", lambda job: None)
    assert accounting.run("squeue", "--noheader") == ""
    assert not plans[0].folder.exists()


def test_account_that_is_not_ones_own_is_refused_as_slurm_refuses_it(
    accounting: Sandbox, walk: Callable[..., LoadedRecipe]
) -> None:
    profile = Profile(cpus_per_task=1, account="robot")
    plan = plan_job(walk(), profile)
    with pytest.raises(ClusterError, match=r"may not use the account robot. Did you mean robots\?"):
        require_allowance([plan], profile)
    with pytest.raises(ClusterError, match=r"Invalid account.*Set `account` in the profile"):
        check_with_slurm(plan, profile)
