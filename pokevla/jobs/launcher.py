"""Launchers: start the tasks of a job, report their state, stop and restart them.

A launcher is one object with the methods below, registered in `pokevla.parts.LAUNCHERS`. The code inside a task
(`pokevla.jobs.task.job`) and the commands that query jobs work with any of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from pokevla.errors import EnvironmentSetupError
from pokevla.jobs.plan import JobPlan, Submitted
from pokevla.jobs.profile import Profile
from pokevla.jobs.record import JobRecord
from pokevla.jobs.state import JobState
from pokevla.jobs.task.job_task import JobTask
from pokevla.jobs.task.restarts import Restart
from pokevla.parts import LAUNCHERS, get_part

Check = Callable[[], list[str]]
"""A check before submission: returns remarks or raises a named error."""


class Launcher(Protocol):
    """One way to run jobs."""

    prefix: str
    """Prefix of its job ids in `slurm.json`; "" for Slurm, whose ids are numbers."""
    is_cluster: bool
    """Whether jobs wait in a queue and run on other machines."""

    def is_available(self) -> bool:
        """Whether it can be queried from this machine."""
        ...

    def checks(self, plan: JobPlan, profile: Profile) -> Iterable[Check]:
        """Checks before submission that only this launcher can make, such as of the partition."""
        ...

    def script(self, plan: JobPlan, profile: Profile, after: Sequence[str]) -> str:
        """Text that `--dry-run` shows for a job; `after` are the ids of jobs that must succeed first."""
        ...

    def verdict(self, plan: JobPlan, profile: Profile) -> str:
        """Its answer to a job that is not queued (Slurm's `--test-only`). ClusterError if it would refuse the job."""
        ...

    def submit(
        self, plans: Sequence[JobPlan], profile: Profile, profile_name: str, on_submit: Callable[[Submitted], None]
    ) -> None:
        """Queue or run the jobs of a chain; each starts when the one before it has succeeded.

        Prepares each job's folder (`pokevla.jobs.preparation.prepare`) and adds it to the record. `on_submit` is
        called for each job.
        """
        ...

    def state(self, job_id: str) -> JobState:
        """State of one of its jobs; UNKNOWN if it has forgotten the job. ClusterError if it does not answer."""
        ...

    def stop(self, job: JobRecord, state: JobState) -> str:
        """Have an active job save and end without being restarted; returns a sentence for a person."""
        ...

    def read_task(self, environment: Mapping[str, str]) -> JobTask | None:
        """This process as a task of a job, or None if this launcher did not start it."""
        ...

    def main_address(self, task: JobTask) -> str:
        """Address of rank 0's machine, where all ranks meet."""
        ...

    def restart_after_signal(self, task: JobTask, reason: str) -> Restart | None:
        """How to restart a job that was asked to end ("timeout", "terminated", "interrupted") and has saved; None if
        it must not restart. Called by rank 0."""
        ...

    def restart_after_kill(self, task: JobTask) -> Restart | None:
        """How to restart a job one of whose tasks was killed by a signal; None if it must not restart."""
        ...

    def run_again(self, task: JobTask) -> int:
        """Request a restart of this job; returns the exit code with which rank 0 must end."""
        ...


def read_task(environment: Mapping[str, str] = os.environ) -> JobTask:
    """This process as a task of a job, from the environment that its launcher has set.

    Raises:
        EnvironmentSetupError: this process is not a task of a job.
    """
    for name in LAUNCHERS:
        task = launcher_named(name).read_task(environment)
        if task is not None:
            return task
    raise EnvironmentSetupError("This is not a task of a submitted job.", "Start it with: pokevla submit RECIPE")


def launcher_named(name: str) -> Launcher:
    """The launcher `name`. RecipeError if there is none."""
    return get_part("launcher", name, LAUNCHERS)


def launcher_of(job_id: str) -> Launcher | None:
    """The launcher of a job; None if the module that adds it has not been imported."""
    for name in LAUNCHERS:
        launcher = launcher_named(name)
        if launcher.prefix and job_id.startswith(launcher.prefix):
            return launcher
    return launcher_named("slurm") if job_id.partition("_")[0].isdigit() else None
