"""`pokevla submit --local`: the same job on this machine, through submitit's local executor."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from submitit import LocalExecutor

from pokevla.errors import PokeVLAError, TrainingError, UsageError
from slurm.job import Job
from slurm.plan import JobPlan
from slurm.profile import Profile
from slurm.record import JOBS, LOCAL, add_job, read_exit, task_log
from slurm.snapshot import CODE
from slurm.submit import Submitted, environment, job_record, prepare

_POLL_S = 0.2


def run_locally(
    plans: Sequence[JobPlan], profile: Profile, profile_name: str, on_start: Callable[[Submitted], None]
) -> None:
    """Run a chain of jobs one after another and wait for each; the first that fails ends it.

    Partition, setup and the other wishes of a profile that only a cluster can fulfil are left out; its environment
    holds. A job array is one job here.

    Raises:
        UsageError: a job that needs several machines.
        PokeVLAError: a job failed; with its sentence and exit code.
    """
    for plan in plans:
        if plan.nodes > 1:
            raise UsageError(f"{plan.recipe.name} wants {plan.nodes} machines; --local has one.", "resources.nodes=1")
    before: list[Submitted] = []
    for plan in plans:
        prepare(plan)
        executor = LocalExecutor(plan.folder / JOBS / "local")
        executor.update_parameters(
            timeout_min=plan.time_limit_s / 60,
            signal_delay_s=plan.signal_lead_s,
            tasks_per_node=plan.tasks_per_node,
            gpus_per_node=plan.gpus_per_node,
        )
        with _variables(environment(plan, profile) | {"PYTHONPATH": _python_path(plan)}):
            job = executor.submit(Job(str(plan.folder)))
        started = Submitted(plan, f"{LOCAL}{job.job_id}")
        add_job(plan.folder, job_record(started, profile, profile_name, before[-1:]))
        before.append(started)
        on_start(started)
        while not job.done():
            time.sleep(_POLL_S)
        if any(job.task(rank).exception() is not None for rank in range(plan.tasks_per_node)):
            raise _failure(started)


def _failure(job: Submitted) -> PokeVLAError:
    ended = read_exit(job.plan.folder, job.job_id)
    log = task_log(job.plan.folder, job.job_id)
    if ended is None:
        return TrainingError(f"{job.plan.recipe.name} failed.", f"See {log}")
    error = TrainingError(f"{job.plan.recipe.name} failed: {ended[1]}", f"Log: {log}")
    error.exit_code = ended[0]
    return error


def _python_path(plan: JobPlan) -> str:
    return os.pathsep.join(part for part in (str(plan.folder / CODE), os.environ.get("PYTHONPATH")) if part)


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
