"""Queues the jobs of recipes: one job or job array per recipe, each waiting for the one before it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError

from pokevla.errors import ClusterError
from pokevla.jobs.code_copy import CODE
from pokevla.jobs.plain_path import make_plain_path, plain_path
from pokevla.jobs.plan import JobPlan, Submitted
from pokevla.jobs.preparation import environment, job_record, jobs_of, prepare
from pokevla.jobs.profile import Profile
from pokevla.jobs.record import JOBS, add_job
from slurm.commands import ask_slurm, last_error_line

_KILL_ON_INVALID = "kill-on-invalid-dep"
PROBE_S = 60
"""Seconds within which all nodes of a job must answer; one that does not may be dead."""
AFTER_KILL_S = 300
"""Timeout of `slurm.after_kill` in seconds: imports from a cold file system, two queries to a busy controller."""


class ScriptWriter(SlurmExecutor):
    """Only writes scripts, so that `--dry-run` works on a machine without Slurm."""

    @classmethod
    def affinity(cls) -> int:
        return 2


def script(plan: JobPlan, profile: Profile, after: Sequence[str] = ()) -> str:
    """The batch script of a job, as passed to `sbatch`."""
    executor = ScriptWriter(_logs(plain_path(plan.folder)), python=profile.python)
    executor.update_parameters(**parameters(plan, profile, after))
    if plan.pieces:
        executor.parameters["map_count"] = len(plan.pieces)
    return executor._make_submission_file_text(executor._submitit_command_str, "dry-run")


def check_with_slurm(plan: JobPlan, profile: Profile) -> str:
    """Have Slurm check a job without queueing it (`sbatch --test-only`): account, QOS, constraint, limits.

    Returns its answer, which names the expected start.

    Raises:
        ClusterError: Slurm would refuse the job.
    """
    done = ask_slurm("sbatch", "--test-only", text=script(plan, profile))
    if done.returncode != 0:
        refusal = last_error_line(done)
        remedy = "See the profile."
        if "account" in refusal:
            remedy = "Set `account` in the profile; yours are shown by: sacctmgr show associations user=$USER"
        raise ClusterError(f"{plan.recipe.name}: Slurm would refuse this job: {refusal}", remedy)
    return last_error_line(done)


def parameters(plan: JobPlan, profile: Profile, after: Sequence[str] = ()) -> dict[str, Any]:
    """Parameters of submitit's executor for one job."""
    extra = {flag.replace("_", "-"): value for flag, value in profile.sbatch.items() if value is not False}
    extra["requeue"] = True  # whatever the cluster's JobRequeue says
    if after:
        extra[_KILL_ON_INVALID] = "yes"  # without it a job whose parent failed waits forever
    settings = {
        "job_name": plan.recipe.name,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "time": -(-plan.time_limit_s // 60),
        "nodes": plan.nodes,
        "ntasks_per_node": plan.tasks_per_node,
        "cpus_per_task": plan.cpus_per_task,
        "gpus_per_node": plan.gpus_per_node or None,
        "mem": f"{profile.memory_gib_per_node}G" if profile.memory_gib_per_node else None,
        "signal_delay_s": plan.signal_lead_s,
        "mail_user": profile.mail.user if profile.mail else None,
        "mail_type": ",".join(profile.mail.events) if profile.mail else None,
        "dependency": f"afterok:{':'.join(after)}" if after else None,
        "setup": [*profile.setup, *_exports(plan, profile)],
        # The first rank that fails ends the others, which would wait for it in a collective.
        "srun_args": ["--kill-on-bad-exit=1"],
        "teardown": _after_srun(plan, profile.python),
        "array_parallelism": max(1, len(plan.pieces)),
        "additional_parameters": extra,
    }
    return {"wckey": None, **{name: value for name, value in settings.items() if value is not None}}


def _after_srun(plan: JobPlan, python: str | None) -> list[str]:
    """Shell lines of the batch script after srun. They act on exit codes other than those of our named errors.

    When a node dies, the other ranks lose their connection and fail at once, and so does srun; Slurm notices the dead
    node only after SlurmdTimeout, and requeues the job if it has not ended by then. If all nodes answer and a task was
    killed by SIGKILL or SIGTERM (128 + number), the job may request a restart.
    """
    piece = " $SLURM_ARRAY_TASK_ID" if plan.pieces else ""
    run_again = f"{python or quote(sys.executable)} -m slurm.after_kill {quote(str(plan.folder))}{piece}"
    answer = [f"case $status in 137|143) timeout {AFTER_KILL_S} {run_again} ;; esac", "exit $status"]
    lines = ["status=$?", "case $status in 0|2|3|4|75) exit $status ;; esac"]
    if plan.nodes == 1:
        return [*lines, *answer]
    probe = f"srun --overlap --nodes={plan.nodes} --ntasks={plan.nodes} --ntasks-per-node=1 --output=/dev/null true"
    return [
        *lines,
        f"if timeout {PROBE_S} {probe}; then",
        *answer,
        "fi",
        "limit_s=$(scontrol show config | sed -n 's/^SlurmdTimeout *= *\\([0-9]*\\).*/\\1/p')",
        "sleep $((${limit_s:-300} + 60))",
        "exit $status",
    ]


def _exports(plan: JobPlan, profile: Profile) -> list[str]:
    lines = [f"export {name}={quote(value)}" for name, value in environment(plan, profile).items()]
    code = plain_path(plan.folder) / CODE
    return [*lines, f"export PYTHONPATH={quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}"]


def _logs(run_dir: Path) -> Path:
    """Folder of a job's script and logs, with submitit's sign for the job id."""
    return run_dir / JOBS / "%j"


# ------------------------------------------------------------------------------------------------ into the queue


def submit_chain(plans: Sequence[JobPlan], profile: Profile, profile_name: str) -> list[Submitted]:
    """Queue the jobs; each starts when the one before it has succeeded. Call `preflight` first.

    Raises:
        ClusterError: Slurm refuses a job; those already queued are cancelled.
    """
    for plan in plans:
        prepare(plan)
    done: list[Submitted] = []
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [ask_slurm("scancel", one.job_id) for one in done])
        for plan in plans:
            after = done[-1:]
            job_id = _queue(plan, profile, [one.job_id for one in after])
            done.append(Submitted(plan, job_id))
            add_job(plan.folder, job_record(done[-1], profile, profile_name, after))
        stack.pop_all()
    return done


def _queue(plan: JobPlan, profile: Profile, after: Sequence[str]) -> str:
    executor = SlurmExecutor(_logs(make_plain_path(plan.folder)), python=profile.python)
    executor.update_parameters(**parameters(plan, profile, after))
    try:
        jobs = executor.submit_array(jobs_of(plan))
    except (FailedJobError, FailedSubmissionError) as error:
        errors = [line.strip() for line in str(error).splitlines() if "sbatch: error:" in line]
        reason = errors[-1].partition("sbatch: error: ")[2] if errors else str(error).strip().splitlines()[-1]
        raise ClusterError(f"{plan.recipe.name}: Slurm refuses this job: {reason}", "See the profile.") from error
    return jobs[0].job_id.split("_")[0]
