"""Launchers: what starts a job's tasks, tells how they stand, stops them and starts them again.

A launcher is one object with the methods below, an entry of `pokevla.parts.LAUNCHERS`. Whatever runs inside a task
(`pokevla.jobs.task.job`) and whatever asks about jobs works with any of them.
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
from pokevla.jobs.task.place import Place
from pokevla.jobs.task.restarts import Restart
from pokevla.parts import LAUNCHERS, get_part

Check = Callable[[], list[str]]
"""A check before submission: returns remarks, raises a named error."""


class Launcher(Protocol):
    """One way to run jobs."""

    prefix: str
    """Begins the ids of its jobs in `slurm.json`; "" for Slurm, whose ids are numbers."""
    is_cluster: bool
    """Whether jobs wait in a queue and run on other machines."""

    def is_available(self) -> bool:
        """Whether it can be asked from this machine."""
        ...

    def checks(self, plan: JobPlan, profile: Profile) -> Iterable[Check]:
        """What only it can know before a job is submitted."""
        ...

    def script(self, plan: JobPlan, profile: Profile, after: Sequence[str]) -> str:
        """What `--dry-run` shows of a job; `after` are the ids of jobs that must end well before."""
        ...

    def verdict(self, plan: JobPlan, profile: Profile) -> str:
        """What it says about a job without queueing it. ClusterError when it would refuse."""
        ...

    def submit(
        self, plans: Sequence[JobPlan], profile: Profile, profile_name: str, on_submit: Callable[[Submitted], None]
    ) -> None:
        """Queue the jobs of a chain, or run them; each begins when the one before it has ended well.

        Prepares each job's folder (`pokevla.jobs.preparation.prepare`) and adds it to the record. `on_submit` is
        called for each job.
        """
        ...

    def state(self, job_id: str) -> JobState:
        """How a job of its own stands; UNKNOWN when it has forgotten it. ClusterError when it does not answer."""
        ...

    def stop(self, job: JobRecord, state: JobState) -> str:
        """Let an active job save and end, and not come back; returns a sentence for a person."""
        ...

    def read_place(self, environment: Mapping[str, str]) -> Place | None:
        """The place of this process in a job, or None when it is no task of this launcher."""
        ...

    def main_address(self, place: Place) -> str:
        """Address of rank 0's machine, for all ranks to meet at."""
        ...

    def restart_after_signal(self, place: Place, reason: str) -> Restart | None:
        """Whether a job that was told to end ("timeout", "terminated", "interrupted"), and has saved, shall run
        again. Called by rank 0."""
        ...

    def restart_after_kill(self, place: Place) -> Restart | None:
        """Whether a job of which a task was killed without a word shall run again."""
        ...

    def run_again(self, place: Place) -> int:
        """Ask for another start of this job; returns the exit code with which rank 0 has to leave."""
        ...


def read_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Where this process stands in its job, from what its launcher has set.

    Raises:
        EnvironmentSetupError: this is no task of a job.
    """
    for name in LAUNCHERS:
        place = launcher_named(name).read_place(environment)
        if place is not None:
            return place
    raise EnvironmentSetupError("This is no task of a submitted job.", "Start it with: pokevla submit RECIPE")


def launcher_named(name: str) -> Launcher:
    """The launcher of that name. RecipeError if there is none."""
    return get_part("launcher", name, LAUNCHERS)


def launcher_of(job_id: str) -> Launcher | None:
    """The launcher that a job belongs to; None if the module that adds it has not been imported."""
    for name in LAUNCHERS:
        launcher = launcher_named(name)
        if launcher.prefix and job_id.startswith(launcher.prefix):
            return launcher
    return launcher_named("slurm") if job_id.partition("_")[0].isdigit() else None
