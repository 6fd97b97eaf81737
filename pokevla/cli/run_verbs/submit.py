"""`pokevla submit RECIPE [overrides] [--then "RECIPE [overrides]"]`: training, caches and evaluations as Slurm jobs."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from slurm.plan import JobPlan
    from slurm.profile import Profile
    from slurm.submit import Submitted


def submit(
    recipe: Annotated[Path, typer.Argument(help="Recipe of kind pretrain, posttrain, cache, eval or grounding.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes of its fields, e.g. resources.nodes=2")] = None,
    then: Annotated[
        list[str] | None, typer.Option("--then", help='Next job, after this one has ended well: "RECIPE [overrides]".')
    ] = None,
    profile: Annotated[
        str | None, typer.Option("--profile", help="Cluster profile: a name or a file (or set POKEVLA_PROFILE).")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print plan and batch scripts, and queue nothing.")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Run the same jobs on this machine, and wait for them.")
    ] = False,
) -> None:
    """Queue one job, or a chain of them; each resumes by itself until it is done."""
    from pokevla.recipe.load import load_recipe
    from slurm.commands import has_slurm
    from slurm.plan import describe, plan_job
    from slurm.preflight import preflight
    from slurm.profile import load_profile, shown

    name, wanted = load_profile(profile)
    chain = [(recipe, overrides or []), *(_parse(text) for text in then or [])]
    plans = [plan_job(load_recipe(path, changes), wanted) for path, changes in chain]
    on_cluster = not local and (has_slurm() or not dry_run)
    typer.echo(f"profile: {shown(name)}")
    for plan in plans:
        for line in describe(plan):
            typer.echo(line)
    if dry_run:  # shown whatever the checks say: they may lack the data that only the cluster has
        _print_scripts(plans, wanted)
    for remark in preflight(plans, wanted, on_cluster=on_cluster):
        typer.echo(f"warning: {remark}", err=True)
    if dry_run:
        _print_verdict(plans, wanted, on_cluster)
    elif local:
        from slurm.local import run_locally

        run_locally(plans, wanted, name, _tell_start)
        typer.echo("finished")
    else:
        _queue(plans, wanted, name)


def _parse(text: str) -> tuple[Path, list[str]]:
    words = shlex.split(text)
    if not words:
        raise typer.BadParameter("--then needs a recipe.")
    return Path(words[0]), words[1:]


def _print_scripts(plans: list[JobPlan], profile: Profile) -> None:
    from slurm.submit import script

    for number, plan in enumerate(plans):
        typer.echo(f"\n# ---- {plan.recipe.name}")
        typer.echo(script(plan, profile, after=["JOB_BEFORE"] if number else []))


def _print_verdict(plans: list[JobPlan], profile: Profile, on_cluster: bool) -> None:
    from slurm.submit import check_with_slurm

    for plan in plans:
        verdict = check_with_slurm(plan, profile) if on_cluster else "not asked: there is no Slurm on this machine"
        typer.echo(f"{plan.recipe.name}: all checks passed; Slurm's verdict: {verdict}")


def _queue(plans: list[JobPlan], profile: Profile, name: str) -> None:
    from slurm.submit import check_with_slurm, submit_chain

    for plan in plans:
        check_with_slurm(plan, profile)
    for job in submit_chain(plans, profile, name):
        array = f" ({len(job.plan.pieces)} tasks)" if job.plan.pieces else ""
        typer.echo(f"job {job.job_id}{array}: {job.plan.recipe.name}")
    typer.echo(f"follow it: pokevla watch {plans[0].folder}")


def _tell_start(job: Submitted) -> None:
    typer.echo(f"{job.job_id}: {job.plan.recipe.name}, log {job.plan.folder / 'logs'}")
