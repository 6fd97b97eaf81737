"""Preparing the directory of a job before it is submitted."""

from __future__ import annotations

from collections.abc import Sequence

from pokevla.files.texts import write_text
from pokevla.jobs.code_copy import copy_code
from pokevla.jobs.pieces import write_pieces
from pokevla.jobs.plan import JobPlan, Submitted
from pokevla.jobs.profile import Profile
from pokevla.jobs.record import JOBS, JobRecord
from pokevla.jobs.task.job import Job
from pokevla.recipe.dump import dump_absolute
from pokevla.recipe.kinds import TrainingRecipe, training_of
from pokevla.runs.directory import RECIPE, holds_recipe
from pokevla.telemetry.jsonl import now


def prepare(plan: JobPlan) -> None:
    """Write recipe, manifest, code copy and pieces to the job's directory.

    An existing run keeps its files; permitted changes (resources, say) are written to its recipe, which is all that the
    job reads.

    Raises:
        DataError: a dataset is missing.
        DiskFullError: disk full.
        RecipeError: the recipe changes what the run learns.
    """
    training = training_of(plan.recipe)
    if training is not None:
        _prepare_run(plan, training)
    else:
        plan.folder.mkdir(parents=True, exist_ok=True)
        write_text(plan.folder / RECIPE, dump_absolute(plan.loaded))
    copy_code(plan.folder)
    (plan.folder / JOBS).mkdir(exist_ok=True)
    if plan.pieces:
        write_pieces(plan.folder, plan.pieces)


def _prepare_run(plan: JobPlan, recipe: TrainingRecipe) -> None:
    """Create a run, begin one again that failed before its first checkpoint, or keep what changes in one."""
    from pokevla.runs.changes import begins_again, keep_submission
    from pokevla.runs.creation import create_run, set_failed_run_aside

    exists = holds_recipe(plan.folder)
    if exists and begins_again(plan.folder, recipe):
        exists = set_failed_run_aside(plan.folder, jobs_are_over=True) is None  # preflight has asked
    if exists:
        keep_submission(plan.folder, recipe)
    else:
        create_run(plan.loaded, recipe)


def jobs_of(plan: JobPlan) -> list[Job]:
    """The objects to pickle: one job, or one per piece."""
    folder = str(plan.folder)
    return [Job(folder, number) for number in range(len(plan.pieces))] or [Job(folder)]


def job_record(submitted: Submitted, profile: Profile, profile_name: str, after: Sequence[Submitted] = ()) -> JobRecord:
    """Entry of a job in `slurm.json`."""
    plan = submitted.plan
    return JobRecord(
        job_id=submitted.job_id,
        name=plan.recipe.name,
        submitted=now(),
        profile=profile_name,
        partition=profile.partition or "",
        after=tuple(one.job_id for one in after),
        after_names=tuple(one.plan.recipe.name for one in after),
        nodes=plan.nodes,
        tasks_per_node=plan.tasks_per_node,
        time_limit_s=plan.time_limit_s,
        signal_lead_s=plan.signal_lead_s,
        array_size=len(plan.pieces),
    )


def environment(plan: JobPlan, profile: Profile) -> dict[str, str]:
    """Environment variables of a job. PYTHONSAFEPATH makes Python import the code copy, not the checkout that the job
    starts in and that may have changed since."""
    variables = {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    if plan.threads is not None:
        # As `pokevla train` sets them for its ranks (pokevla/distributed/process.py).
        variables |= {"OMP_NUM_THREADS": str(plan.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return variables | profile.environment
