"""Resources that a job requests from the cluster, derived from its recipe and the profile."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from pokevla.errors import DataError, RecipeError, command_line
from pokevla.jobs.durations import format_duration, parse_duration_s
from pokevla.jobs.pieces import DIVISIONS, Pieces, plan_pieces
from pokevla.jobs.profile import Profile
from pokevla.recipe.kinds import AnyRecipe, TrainingRecipe, kind_of, training_of
from pokevla.recipe.load import LoadedRecipe
from pokevla.recipe.planning.plan import disk_needs
from pokevla.recipe.planning.plan import plan as plan_training
from pokevla.runs.directory import run_directory
from pokevla.runs.lead_time import SAFETY, SAVES, UNKNOWN_S, needed_lead_s
from pokevla.telemetry.follow import JsonlFollower
from pokevla.telemetry.jsonl import EVENTS

SAVE_BYTES_PER_S = 200e6
"""Assumed speed of a busy parallel file system until a save has been measured (ours)."""
EARLY_S = 60
"""Slurm checks time limits about every 30 s and may send its warning a minute early (man sbatch, --signal)."""
OTHER_LEAD_S = 60
"""Lead time of a cache or an evaluation, which need not save: finished work is already on disk."""
START_S = 120
"""Time from the start of a job to its first step: imports, loading weights, the first batches (ours)."""
OTHER_TIME_LIMIT_S = 24 * 3600
"""Time limit of a cache or an evaluation if the profile has none."""


@dataclass(frozen=True)
class JobPlan:
    """One job or job array to submit."""

    loaded: LoadedRecipe
    folder: Path  # absolute
    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    cpus_per_task: int
    threads: int | None  # OMP threads per task; None: the job decides
    time_limit_s: int
    signal_lead_s: int
    save_s: float  # of one checkpoint; 0 if nothing is saved
    is_save_measured: bool
    hours: float | None  # of the whole training; None if unknown
    pieces: Pieces  # one per Slurm task of a job array; empty for an ordinary job

    @property
    def recipe(self) -> AnyRecipe:
        """The recipe of the job."""
        return self.loaded.recipe

    @property
    def trains(self) -> bool:
        """Whether it is a training run, which has checkpoints to continue from."""
        return kind_of(self.recipe).trains

    @property
    def jobs_needed(self) -> int | None:
        """Number of jobs of this time limit that the planned hours take; None if unknown."""
        if self.hours is None:
            return None
        usable_s = max(self.time_limit_s - self.signal_lead_s - START_S, 1)
        return max(1, math.ceil(self.hours * 3600 / usable_s))

    @property
    def shortest_limit_s(self) -> int:
        """Shortest time limit with which a job can save something before it is reached."""
        return START_S + EARLY_S + self.signal_lead_s


@dataclass(frozen=True)
class Submitted:
    """One job that a launcher has accepted."""

    plan: JobPlan
    job_id: str


def plan_job(loaded: LoadedRecipe, profile: Profile) -> JobPlan:
    """Plan the job of a recipe.

    Raises:
        RecipeError: the kind cannot be submitted, or the ranks cannot be spread over the nodes.
        DataError, CheckpointError: the dataset or the teacher weights of a cache are missing.
    """
    recipe = loaded.recipe
    if not kind_of(recipe).is_job:
        raise RecipeError(
            f"{loaded.path} is of kind {recipe.kind}, which runs on one machine.",
            "Submit its recipes as a chain: pokevla submit FIRST --then SECOND"
            if kind_of(recipe).name == "pipeline"
            else f"Run it with: {command_line('data', 'mix', loaded.path)}",
        )
    training = training_of(recipe)
    if training is not None:
        return _plan_training(loaded, training, profile)
    pieces = plan_pieces(recipe, profile.array_width)
    return JobPlan(
        loaded=loaded,
        folder=job_folder(recipe),
        nodes=1,
        tasks_per_node=1,
        gpus_per_node=min(1, profile.gpus_per_node or 0),
        cpus_per_task=max(profile.cpus_per_task, recipe.processes),
        threads=None,
        time_limit_s=profile.time_limit_s or OTHER_TIME_LIMIT_S,
        signal_lead_s=profile.signal_lead_s or OTHER_LEAD_S,
        save_s=0.0,
        is_save_measured=True,
        hours=None,
        pieces=pieces if len(pieces) > 1 else (),
    )


def job_folder(recipe: AnyRecipe) -> Path:
    """Run directory of a job, as an absolute path."""
    return run_directory(recipe).absolute()


def _plan_training(loaded: LoadedRecipe, recipe: TrainingRecipe, profile: Profile) -> JobPlan:
    resources = recipe.resources
    tasks, rest = divmod(resources.world_size, resources.nodes)
    if rest:
        raise RecipeError(
            f"resources.cpu_ranks {resources.cpu_ranks} cannot be spread evenly over {resources.nodes} nodes.",
            f"Use a multiple of {resources.nodes}.",
        )
    folder = job_folder(recipe)
    measured = measured_save_s(folder)
    save_s = measured if measured is not None else disk_needs(recipe, None).checkpoint / SAVE_BYTES_PER_S
    limits = [parse_duration_s(resources.time_limit), profile.time_limit_s]
    lead_s = needed_lead_s(folder) if measured is not None else max(UNKNOWN_S, EARLY_S + SAFETY * SAVES * save_s)
    return JobPlan(
        loaded=loaded,
        folder=folder,
        nodes=resources.nodes,
        tasks_per_node=tasks,
        gpus_per_node=resources.gpus_per_node,
        cpus_per_task=profile.cpus_per_task,
        threads=resources.threads_per_rank if resources.gpus_per_node == 0 else None,
        time_limit_s=min(limit for limit in limits if limit is not None),
        signal_lead_s=profile.signal_lead_s or math.ceil(lead_s),
        save_s=save_s,
        is_save_measured=measured is not None,
        hours=_hours(recipe),
        pieces=(),
    )


def measured_save_s(run_dir: Path) -> float | None:
    """Duration of the run's longest save in seconds; None before the first save."""
    times = (row.get("save_s") for row in JsonlFollower(run_dir / EVENTS).read_all())
    return max((time_s for time_s in times if isinstance(time_s, int | float)), default=None)


def _hours(recipe: TrainingRecipe) -> float | None:
    try:
        return plan_training(recipe).hours
    except DataError:  # a missing dataset: preflight reports it
        return None


def describe(plan: JobPlan) -> list[str]:
    """Lines that show the plan to a person."""
    recipe = plan.recipe
    gpus = f" with a GPU each ({plan.gpus_per_node} a node)" if plan.gpus_per_node else " on the CPU"
    lines = [
        f"{recipe.name} ({recipe.kind}) in {plan.folder}",
        f"  {plan.nodes} node(s) x {plan.tasks_per_node} task(s){gpus}, {plan.cpus_per_task} processors a task",
        f"  time limit {format_duration(plan.time_limit_s)}, warned to save {plan.signal_lead_s} s before",
    ]
    if plan.trains:
        how = "measured" if plan.is_save_measured else "estimated from its size"
        lines.append(f"  a save takes {plan.save_s:.1f} s ({how})")
    if plan.hours is not None:
        lines.append(f"  about {plan.hours:.1f} hours of training: {plan.jobs_needed} job(s) of this length")
    division = DIVISIONS.get(recipe.kind)
    if division is not None and plan.pieces:
        total = sum(len(names) for names in plan.pieces)
        lines.append(f"  job array of {len(plan.pieces)} tasks for {total} missing {division.plural}")
    elif division is not None and division.piece:
        lines.append(f"  one task: at most one {division.piece} is missing")
    return lines
