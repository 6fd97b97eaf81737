"""Checks on the login node before a job is queued: a mistake should cost a minute, not a night."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from pokevla.errors import CheckpointError, ClusterError, DataError, PokeVLAError, UsageError, command_line
from pokevla.files.holders import read_holder
from pokevla.files.ownership import foreign_entry
from pokevla.files.remote.urls import is_url
from pokevla.jobs.checks.start import check_start
from pokevla.jobs.launcher import Check, Launcher
from pokevla.jobs.plan import JobPlan
from pokevla.jobs.profile import Profile
from pokevla.jobs.tracking import active_job
from pokevla.recipe.kinds import kind_of, training_of
from pokevla.recipe.load import load_recipe, recipe_hash_at
from pokevla.recipe.values import describe_changes
from pokevla.runs.changes import begins_again, changes_of_submission
from pokevla.runs.checkpoints import list_checkpoints, read_info
from pokevla.runs.checks import existing_ancestor
from pokevla.runs.creation import LOCK, is_locked
from pokevla.runs.directory import RECIPE, holds_recipe, read_run_recipe
from pokevla.runs.length import refuse_finished

T = TypeVar("T")
NODE_LOCAL_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")
NODE_LOCAL_SYSTEMS = ("tmpfs", "ramfs", "devtmpfs")


def preflight(plans: Sequence[JobPlan], profile: Profile, launcher: Launcher | None) -> list[str]:
    """Check a chain of jobs; returns remarks that do not stop it. Without a launcher, its own checks are skipped.

    Raises:
        PokeVLAError: of the class of the first problem; the message lists all problems, one per line.
    """
    problems: list[PokeVLAError] = []
    remarks: list[str] = []
    made_before: list[Path] = []
    caches: list[JobPlan] = []
    for plan in plans:
        for check in _checks_of(plan, profile, launcher, made_before, caches):
            remarks += [f"{plan.recipe.name}: {remark}" for remark in _attempt(check, problems, plan.recipe.name) or []]
        made_before += plan.recipe.result_folders
        if kind_of(plan.recipe).builds_cache:
            caches.append(plan)
    problems += _same_folder_twice(plans)
    if problems:
        raise type(problems[0])("\n".join(str(problem) for problem in problems))
    return remarks


def _attempt(check: Callable[[], T], problems: list[PokeVLAError], name: str = "") -> T | None:
    try:
        return check()
    except PokeVLAError as error:
        text = str(error)
        named = text if not name or text.startswith(f"{name}:") else f"{name}: {text}"
        problem = type(error)(named)
        problem.exit_code = error.exit_code
        problems.append(problem)
        return None


def _checks_of(
    plan: JobPlan,
    profile: Profile,
    launcher: Launcher | None,
    made_before: list[Path],
    caches: list[JobPlan],
) -> Iterable[Check]:
    on_cluster = launcher is not None and launcher.is_cluster
    if on_cluster:
        yield lambda: _second_job(plan)
    yield lambda: _second_process(plan)
    yield lambda: check_start(plan.loaded, made_before, [builder.recipe for builder in caches])
    yield lambda: _existing_run(plan)
    if plan.trains:
        yield lambda: _time(plan)
    if on_cluster:
        yield lambda: _shared_paths(plan, profile)
    if launcher is not None:
        yield from launcher.checks(plan, profile)


def _existing_run(plan: JobPlan) -> list[str]:
    """Continue an existing run of the same recipe; refuse one of another recipe."""
    recipe = training_of(plan.recipe)
    if plan.recipe.kind == "eval" and (plan.folder / "summary.json").is_file():
        raise UsageError(f"The evaluation in {plan.folder} is complete.", "Give it another name: name=...")
    if recipe is None:
        _refuse_other_folder(plan)
    if recipe is None or not plan.folder.exists():
        return []
    if not holds_recipe(plan.folder):
        raise UsageError(f"{plan.folder} exists and is not a run directory.", "Give the run another name: name=...")
    refuse_finished(plan.folder, recipe)
    if begins_again(plan.folder, recipe):
        return [f"{plan.folder} failed before its first checkpoint: it begins again with this recipe."]
    changes = changes_of_submission(plan.folder, recipe)
    phrase = describe_changes(*({field: row[side] for field, row in changes.items()} for side in (0, 1)))
    return [*_checkpoint_fits(plan), *([f"{plan.folder} continues with {phrase}."] if phrase else [])]


def _refuse_other_folder(plan: JobPlan) -> None:
    """Refuse to write the recipe of a cache or evaluation into the directory of something else."""
    folder, kind = plan.folder, plan.recipe.kind
    if holds_recipe(folder):
        other = load_recipe(folder / RECIPE).recipe.kind
        if other != kind:
            raise UsageError(f"{folder} is the directory of a job of kind {other}.", "Give it another name: name=...")
    elif folder.exists() and foreign_entry(folder, _BEGUN_WITHOUT_SUBMIT.get(kind, ())) is not None:
        raise UsageError(f"{folder} exists and is not that of a job of kind {kind}.", "Give it another name: name=...")


_BEGUN_WITHOUT_SUBMIT = {
    "eval": (".*", "identity.json", "episodes.jsonl", "summary.json", "videos/**", "pictures/**", "tensorboard/**",
             "parts/**"),
    "grounding": (".*", "answers.jsonl", "summary.json", "pictures/**", "tensorboard/**"),
}  # fmt: skip
"""Kind -> what `pokevla eval` writes, which `pokevla submit` goes on with."""


def _checkpoint_fits(plan: JobPlan) -> list[str]:
    checkpoints = list_checkpoints(plan.folder)
    if not checkpoints:
        return [f"{plan.folder} exists and has no checkpoint yet: it starts from step 0."]
    remarks: list[str] = []
    for step, folder in reversed(checkpoints):
        try:
            info = read_info(folder)
        except CheckpointError as error:  # a resume passes over it
            remarks.append(f"{error.message} It will be passed over.")
            continue
        if info.recipe_hash != recipe_hash_at(read_run_recipe(plan.folder), info.settings):
            raise DataError(f"{folder} was saved with another recipe than the run's {RECIPE}.", f"Restore {RECIPE}.")
        return [*remarks, f"{plan.folder} continues from step {step}."]
    raise CheckpointError(f"All {len(checkpoints)} checkpoints of {plan.folder} are damaged.", " ".join(remarks))


def _time(plan: JobPlan) -> list[str]:
    if plan.time_limit_s < plan.shortest_limit_s:
        raise ClusterError(
            f"a time limit of {plan.time_limit_s} s is too short: starting, saving ({plan.save_s:.0f} s) and the "
            f"warning {plan.signal_lead_s} s ahead of the limit need {plan.shortest_limit_s} s.",
            "Raise resources.time_limit of the recipe or time_limit of the profile.",
        )
    if plan.jobs_needed is not None and plan.jobs_needed > 1:
        return [f"about {plan.hours:.1f} hours are planned: it will be requeued about {plan.jobs_needed - 1} times."]
    return []


def _second_job(plan: JobPlan) -> list[str]:
    active = active_job(plan.folder) if plan.folder.is_dir() else None
    if active is not None:
        job, state = active
        raise UsageError(
            f"{plan.folder} already has a job: {job.job_id}, {state.describe()}.",
            f"Stop it first: {command_line('runs', 'stop', plan.folder)}",
        )
    if plan.trains and plan.folder.is_dir():
        from pokevla.jobs.task.job_lock import refuse_second_job

        refuse_second_job(plan.folder)
    return []


def _second_process(plan: JobPlan) -> list[str]:
    """Nothing holds the run, as far as locks can be seen from this machine."""
    if plan.trains and plan.folder.is_dir() and is_locked(plan.folder):
        holder = read_holder(plan.folder / LOCK)
        who = "another process" if holder is None else holder.describe()
        raise UsageError(f"The run {plan.folder} is in use by {who}.", "Stop it first, or wait until it ends.")
    return []


def _same_folder_twice(plans: Sequence[JobPlan]) -> list[PokeVLAError]:
    folders = [plan.folder for plan in plans]
    twice = sorted({str(folder) for folder in folders if folders.count(folder) > 1})
    return [UsageError(f"Two jobs of the chain write {folder}.", "Give one another name: name=...") for folder in twice]


# ------------------------------------------------------------------------------------------------ the cluster


def _shared_paths(plan: JobPlan, profile: Profile) -> list[str]:
    """Run, datasets and caches are where every node sees them."""
    recipe = plan.recipe
    paths = {"the run directory": plan.folder}
    paths |= {f"the dataset {path}": path for path in recipe.dataset_paths}
    if recipe.feature_cache is not None:
        paths["cache.root"] = recipe.feature_cache.root
    for what, path in paths.items():
        if is_url(path):
            continue
        why = node_local(path, profile.shared)
        if why:
            raise ClusterError(
                f"{what} is in {path.absolute()}, which {why}: other machines do not see it.",
                "Put it on a shared file system; if all nodes do see it, name the folder in the profile's `shared`.",
            )
    return []


def node_local(path: Path, shared: Sequence[Path] = ()) -> str | None:
    """Why a path seems to be local to this machine, or None. `shared` are folders that all nodes are known to see."""
    absolute = existing_ancestor(path).resolve()
    if any(absolute.is_relative_to(folder.resolve()) for folder in shared):
        return None
    folders = (*NODE_LOCAL_FOLDERS, os.environ.get("TMPDIR", "/tmp"))
    local_folder = next((folder for folder in folders if absolute.is_relative_to(Path(folder).resolve())), None)
    if local_folder is not None:
        return f"is below {local_folder}"
    system = file_system(absolute)
    return f"is on a {system}" if system in NODE_LOCAL_SYSTEMS else None


def file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Type of the file system that holds an absolute path; "" if unknown."""
    if not mounts.is_file():
        return ""
    kinds: dict[Path, str] = {}
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, point, kind, *_ = line.split()
        kinds[Path(point.encode().decode("unicode_escape"))] = kind  # later mounts cover earlier ones
    return next((kinds[folder] for folder in (path, *path.parents) if folder in kinds), "")
