"""Slurm as a launcher (`pokevla.jobs.launcher.Launcher`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from pokevla.jobs.launcher import Check
from pokevla.jobs.plan import JobPlan, Submitted
from pokevla.jobs.profile import Profile
from pokevla.jobs.record import JobRecord
from pokevla.jobs.state import JobState
from pokevla.jobs.task.job_task import JobTask
from pokevla.jobs.task.restarts import Restart
from slurm.commands import has_slurm
from slurm.job_state import slurm_state
from slurm.limits import require_allowance
from slurm.partition_checks import partition_checks
from slurm.requeue import REQUEUED_CODE, requeue, restart_after_kill, restart_after_signal
from slurm.stop_job import stop_job
from slurm.task import main_address, read_slurm_task


class SlurmLauncher:
    """Jobs in Slurm's queue, through submitit."""

    prefix = ""
    is_cluster = True

    def is_available(self) -> bool:
        return has_slurm()

    def checks(self, plan: JobPlan, profile: Profile) -> Iterable[Check]:
        return partition_checks(plan, profile)

    def script(self, plan: JobPlan, profile: Profile, after: Sequence[str]) -> str:
        from slurm.submit import script

        return script(plan, profile, after)

    def verdict(self, plan: JobPlan, profile: Profile) -> str:
        from slurm.submit import check_with_slurm

        return check_with_slurm(plan, profile)

    def submit(
        self, plans: Sequence[JobPlan], profile: Profile, profile_name: str, on_submit: Callable[[Submitted], None]
    ) -> None:
        from slurm.submit import check_with_slurm, submit_chain

        require_allowance(plans, profile)  # each job alone fits, but the chain may be too long
        for plan in plans:
            check_with_slurm(plan, profile)
        for job in submit_chain(plans, profile, profile_name):
            on_submit(job)

    def state(self, job_id: str) -> JobState:
        return slurm_state(job_id)

    def stop(self, job: JobRecord, state: JobState) -> str:
        return stop_job(job, state)

    def read_task(self, environment: Mapping[str, str]) -> JobTask | None:
        return read_slurm_task(environment)

    def main_address(self, task: JobTask) -> str:
        return main_address()

    def restart_after_signal(self, task: JobTask, reason: str) -> Restart | None:
        return restart_after_signal(task, reason)

    def restart_after_kill(self, task: JobTask) -> Restart | None:
        return restart_after_kill(task)

    def run_again(self, task: JobTask) -> int:
        requeue(task)
        return REQUEUED_CODE


SLURM = SlurmLauncher()
