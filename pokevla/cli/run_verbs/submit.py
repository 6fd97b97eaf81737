"""`pokevla submit RECIPE [overrides] [--then "RECIPE [overrides]"]`: jobs for Slurm, this machine or others."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pokevla.errors import command_line
from pokevla.files.paths import expanded
from pokevla.packaged_recipes import complete_recipe

if TYPE_CHECKING:
    from pokevla.jobs.launcher import Launcher
    from pokevla.jobs.plan import JobPlan, Submitted
    from pokevla.jobs.profile import Profile
    from pokevla.recipe.load import LoadedRecipe


def submit(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="Recipe of kind pretrain, posttrain, cache, eval or grounding, or a run to go on with.",
            autocompletion=complete_recipe,
        ),
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="Overrides such as resources.nodes=2.")] = None,
    then: Annotated[
        list[str] | None, typer.Option("--then", help='Next job, once this one has succeeded: "RECIPE [overrides]".')
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Cluster profile: a name or a file (or set POKEVLA_PROFILE).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan and batch scripts; queue nothing.")] = False,
    launcher: Annotated[
        str, typer.Option("--launcher", help="What runs the jobs: slurm, local, or one that an extension adds.")
    ] = "slurm",
    local: Annotated[bool, typer.Option("--local", help="The same as --launcher local: run here, and wait.")] = False,
) -> None:
    """Queue one job, or a chain of them; each resumes by itself until it is done."""
    from pokevla.jobs.launcher import launcher_named
    from pokevla.jobs.plan import describe, plan_job
    from pokevla.jobs.preflight import preflight
    from pokevla.jobs.profile import load_profile, shown

    name, settings = load_profile(profile)
    chain = [(recipe, overrides or []), *(_parse(text) for text in then or [])]
    plans = [plan_job(_load(path, changes), settings) for path, changes in chain]
    runner = launcher_named("local" if local else launcher)  # after the recipes: their extensions may add it
    can_be_asked = runner.is_available() or not dry_run
    typer.echo(f"profile: {shown(name)}")
    for plan in plans:
        for line in describe(plan):
            typer.echo(line)
    if dry_run:  # shown even if checks fail: the data may exist on the cluster only
        _print_scripts(plans, settings, runner)
    for remark in preflight(plans, settings, runner if can_be_asked else None):
        typer.echo(f"warning: {remark}", err=True)
    if dry_run:
        for plan in plans:
            verdict = runner.verdict(plan, settings) if can_be_asked else "not asked: it is not on this machine"
            typer.echo(f"{plan.recipe.name}: all checks passed; {launcher}'s verdict: {verdict}")
        return
    runner.submit(plans, settings, name, _print_submitted)
    typer.echo(f"watch it: {command_line('watch', plans[0].folder)}" if runner.is_cluster else "finished")


def _load(path: Path, overrides: list[str]) -> LoadedRecipe:
    """A recipe, or that of a run directory, which goes on where it lies."""
    from pokevla.recipe.load import load_recipe
    from pokevla.runs.changes import load_run

    return load_run(path, overrides) if path.is_dir() else load_recipe(path, overrides)


def _parse(text: str) -> tuple[Path, list[str]]:
    words = shlex.split(text)
    if not words:
        raise typer.BadParameter("--then needs a recipe.")
    return expanded(Path(words[0])), words[1:]


def _print_scripts(plans: list[JobPlan], profile: Profile, runner: Launcher) -> None:
    for number, plan in enumerate(plans):
        typer.echo(f"\n# ---- {plan.recipe.name}")
        typer.echo(runner.script(plan, profile, ["JOB_BEFORE"] if number else []))


def _print_submitted(job: Submitted) -> None:
    array = f" ({len(job.plan.pieces)} pieces)" if job.plan.pieces else ""
    typer.echo(f"job {job.job_id}{array}: {job.plan.recipe.name}, log {job.plan.folder / 'logs'}")
