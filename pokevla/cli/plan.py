"""`pokevla plan`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from pokevla.embodiment.libero import LIBERO
from pokevla.packaged_recipes import complete_recipe
from pokevla.recipe.load import load_recipe
from pokevla.recipe.planning.cache_job import plan_cache
from pokevla.recipe.planning.mixture import plan_mixture
from pokevla.recipe.planning.parts import TITLES
from pokevla.recipe.planning.plan import Plan, Sequences, gib
from pokevla.recipe.planning.plan import plan as make_plan
from pokevla.recipe.schema import CacheRecipe, MixtureRecipe


def plan(
    recipe: Path = typer.Argument(
        ..., help="A pretrain, posttrain, cache or mixture recipe.", autocompletion=complete_recipe
    ),
    overrides: list[str] = typer.Argument(None, help="Overrides such as batch.micro=4."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Print batch arithmetic, steps, memory, compute, hours and disk of a training recipe; compute, hours and disk of
    building a cache; budgets, sources and disk of a mixture."""
    loaded = load_recipe(recipe, overrides or []).recipe
    if isinstance(loaded, CacheRecipe):
        build = plan_cache(loaded, LIBERO.num_views)
        typer.echo(json.dumps(build.to_dict(), indent=2) if as_json else "\n".join(build.lines()))
        return
    if isinstance(loaded, MixtureRecipe):
        mixture = plan_mixture(loaded)
        typer.echo(json.dumps(mixture.to_dict(), indent=2) if as_json else "\n".join(mixture.lines()))
        return
    made = make_plan(loaded)
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
        return
    for line in plan_lines(made):
        typer.echo(line)


def plan_lines(made: Plan) -> list[str]:
    """The plan as text."""
    batch = made.batch
    lines = [
        f"{made.name}: {made.kind}, preset {made.preset}",
        "",
        f"batch       {batch.global_batch} = {batch.micro} micro x {batch.accumulation} accumulation x "
        f"{batch.world_size} rank(s)",
        *_sequence_lines(made.sequences),
        f"samples     {_count(made.samples)} ({made.samples_from})",
        f"steps       {_count(made.steps)}" + (f", warm-up {made.warmup_steps:,}" if made.steps is not None else ""),
        f"epochs      {made.epochs:.2f}" if made.epochs is not None else "epochs      unknown",
        "",
        "parameters  total            trainable",
    ]
    titles = TITLES | {"lora": "LoRA"}
    lines += [f"  {titles[name]:<18}{part.total:>13,}  {part.trainable:>13,}" for name, part in made.parameters.items()]
    lines += [
        f"  {'sum':<18}{made.total_parameters:>13,}  {made.trainable_parameters:>13,}",
        "",
        f"GPU memory, GiB per rank (a GPU has {made.gpu_memory_gib:g})",
        "  ZeRO  weights  gradients  optimizer  activations  total",
    ]
    for row in made.memory:
        mark = " <- this recipe" if row.stage == made.stage else ""
        fits = "" if row.total <= made.gpu_memory_gib else "  does not fit"
        lines.append(
            f"  {row.stage:>4}  {row.weights:7.2f}  {row.gradients:9.2f}  {row.optimizer:9.2f}  "
            f"{row.activations:11.2f}  {row.total:5.1f}{fits}{mark}"
        )
    lines += ["", f"compute     {made.flops_per_sample / 1e12:.3g} TFLOP per sample ({made.tokens_per_sample} tokens)"]
    if made.total_flops is not None:
        lines[-1] += f", {made.total_flops:.3g} FLOP in all"
    if made.recomputed_flops_per_sample:
        again = f"{made.recomputed_flops_per_sample / 1e12:.3g} TFLOP"
        lines.append(f"            and {again} recomputed, which MFU leaves out")
    lines.append(f"hours       {made.hours:.1f}" if made.hours is not None else "hours       unknown")
    lines += ["", *_disk_lines(made), ""]
    if made.cache_build is not None:
        lines += [*made.cache_build.lines(), ""]
    lines += made.notes
    return lines


def _sequence_lines(sequences: Sequences | None) -> list[str]:
    if sequences is None:
        return []
    return [
        f"sequences   packed: {sequences.per_micro_batch:,} per micro-batch, of about {sequences.tokens:,} tokens "
        f"(limit {sequences.limit:,}), {sequences.tokens_per_step:,} tokens per step"
    ]


def _disk_lines(made: Plan) -> list[str]:
    disk = made.disk
    lines = [f"disk        dataset {_size(disk.dataset)}"]
    if made.kind == "posttrain":
        lines[0] += f", feature cache {_size(disk.cache)}"
        lines[0] += f" in {disk.cache_shards:,} shards of 512 MiB" if disk.cache_shards else ""
    lines.append(f"            checkpoint {_size(disk.checkpoint)} each, {_size(disk.checkpoints)} at most kept")
    return lines


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _size(size_bytes: int | None) -> str:
    if size_bytes is None:
        return "unknown"
    return f"{gib(size_bytes):,.1f} GiB" if size_bytes >= 2**30 / 10 else f"{size_bytes / 2**20:,.1f} MiB"
