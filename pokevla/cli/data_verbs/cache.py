"""`pokevla cache build|info|verify|prune`: teacher features, computed once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pokevla.cli.progress import progress
from pokevla.packaged_recipes import complete_recipe

if TYPE_CHECKING:
    from pokevla.evaluation.fidelity import Fidelity
    from pokevla.recipe.sections import CacheConfig

app = typer.Typer(
    no_args_is_help=True, help="Compute teacher features once: build, info, verify, prune.", rich_markup_mode=None
)

_Recipe = Annotated[Path, typer.Argument(help="Recipe of kind cache or posttrain.", autocompletion=complete_recipe)]
_Source = Annotated[Path, typer.Argument(help="Recipe of kind cache or posttrain, or the directory of one cache.")]
_Overrides = Annotated[list[str] | None, typer.Argument(help="Overrides such as cache.sam_codec=fp16.")]
_ENCODED_TOGETHER: dict[str, Callable[[Any], int]] = {
    "cache": lambda recipe: recipe.batch,
    "posttrain": lambda recipe: recipe.batch.micro,
}
"""Samples that the teachers encode together, by kind of recipe."""
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def build(
    recipe: _Recipe,
    overrides: _Overrides = None,
    device: Annotated[
        str | None, typer.Option(help="Device of the teachers: cpu, cuda, ...; default: a GPU if there is one.")
    ] = None,
) -> None:
    """Compute the features of every dataset of a recipe. Continues where a killed build stopped."""
    from pokevla.features.cache_build import build_cache
    from pokevla.features.cache_verify import cache_info
    from pokevla.recipe.checking.datasets import read_info

    cache, datasets, batch = _jobs(recipe, overrides)
    for dataset in datasets:
        read_info(dataset)  # refused before any teacher is loaded
        with progress(dataset.name, "samples") as on_progress:
            directory = build_cache(dataset, cache, batch, on_progress, device)
        _print_info(cache_info(directory))


@app.command()
def info(source: _Source, overrides: _Overrides = None, as_json: _Json = False) -> None:
    """Show what a cache holds and what it was made from."""
    from pokevla.features.cache_verify import cache_info

    reports = [cache_info(directory) for directory in _directories(source, overrides)]
    if as_json:
        typer.echo(json.dumps(reports, indent=2))
        return
    for report in reports:
        _print_info(report)
        for name, value in report["parts"].items():
            typer.echo(f"  {name:<20} {value}")


@app.command()
def verify(
    source: _Source,
    overrides: _Overrides = None,
    recompute: Annotated[int, typer.Option(min=0, help="Samples to recompute and compare.")] = 4,
    fidelity: Annotated[
        Path | None,
        typer.Option(help="Also compare all codecs on these samples, through the model of a post-training run."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Check every checksum of a cache, then recompute some samples and compare."""
    from dataclasses import asdict

    from pokevla.features.cache_verify import verify_cache

    sources: list[tuple[Path, Path | None, CacheConfig | None]]
    if source.is_dir():
        sources = [(source, None, None)]
    else:
        cache, datasets, _ = _jobs(source, overrides)
        directories = _find(cache, datasets)
        sources = [(directory, dataset, cache) for directory, dataset in zip(directories, datasets, strict=True)]
    reports: dict[str, Any] = {}
    for directory, dataset, cache_config in sources:
        with progress("verify") as on_progress:
            report = verify_cache(directory, recompute, on_progress, dataset_root=dataset, cache=cache_config)
        reports[str(directory)] = asdict(report)
        if not as_json:
            typer.echo(f"{directory}: {report.records} records are intact.")
            if report.recomputed:
                cosines = ", ".join(f"{name} {value:.5f}" for name, value in report.cosines.items())
                typer.echo(f"  {report.recomputed} samples recomputed: lowest cosine {cosines}")
        if fidelity is not None:
            rows = _fidelity(directory, dataset, cache_config, recompute, fidelity)
            reports[str(directory)]["fidelity"] = [asdict(row) for row in rows]
            if not as_json:
                _print_fidelity(rows, recompute, fidelity)
    if as_json:
        typer.echo(json.dumps(reports, indent=2))


@app.command()
def prune(
    root: Annotated[Path, typer.Argument(help="Folder of caches: `cache.root` of the recipes.")],
    fingerprints: Annotated[list[str] | None, typer.Argument(help="Caches to delete. Default: all not kept.")] = None,
    keep: Annotated[
        list[Path] | None, typer.Option("--keep", help="Keep the caches of this recipe or run. May be repeated.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete them. Without it they are only listed.")] = False,
    as_json: _Json = False,
) -> None:
    """List the caches that no recipe needs, and with --delete delete them."""
    from pokevla.features.cache_prune import plan_prune
    from pokevla.features.cache_prune import prune as carry_out
    from pokevla.runs.directory import RECIPE

    needed: dict[str, str] = {}
    for source in keep or []:
        cache, datasets, _ = _jobs(source / RECIPE if source.is_dir() else source, None)
        needed |= {fingerprint: f"needed by {source}" for fingerprint, _ in _fingerprints(cache, datasets)}
    plan = plan_prune(root, fingerprints or [], needed)
    if delete:
        carry_out(plan)
    if as_json:
        content = {"root": str(root), "carried_out": delete, "caches": [cache.as_json() for cache in plan]}
        typer.echo(json.dumps(content, indent=2))
        return
    for cache in plan:
        verb = "deleted" if delete else "would delete"
        decision = verb if cache.kept_because is None else f"kept: {cache.kept_because}"
        typer.echo(f"{cache.directory.name}  {cache.size_bytes / 2**20:.1f} MiB  {decision}  ({cache.made_of})")
    if not delete and any(cache.kept_because is None for cache in plan):
        typer.echo("Nothing is deleted yet: add --delete.")


def _fidelity(
    directory: Path, dataset: Path | None, cache: CacheConfig | None, count: int, run: Path
) -> list[Fidelity]:
    from pokevla.data.dataset import open_dataset
    from pokevla.errors import UsageError
    from pokevla.evaluation.fidelity import measure_fidelity
    from pokevla.features.cache_files import read_manifest
    from pokevla.features.cache_verify import recompute_samples
    from pokevla.recipe.sections import CacheConfig

    if count == 0:
        raise UsageError("--fidelity compares recomputed samples, and --recompute is 0.", "Set --recompute 16.")
    manifest = read_manifest(directory)
    opened = open_dataset(dataset or Path(manifest["origin"]["dataset"]))
    cache = cache or CacheConfig.model_validate(manifest["origin"]["cache"])
    return measure_fidelity(recompute_samples(directory, manifest, opened, cache, count), run)


def _print_fidelity(rows: list[Fidelity], count: int, run: Path) -> None:
    from rich.table import Table

    from pokevla.cli.run_verbs.eval import console_for

    table = Table(title=f"{count} samples, through the model of {run}", title_justify="left")
    for column in (
        "field",
        "codec",
        "KiB/sample",
        "relative L2",
        "worst cosine",
        "mask logits",
        "mask IoU",
        "geometry",
    ):
        table.add_column(column, justify="left" if column in ("field", "codec") else "right")
    for row in rows:
        figures = (row.mask_change, row.mask_iou, row.alignment_change)
        shown = ["-" if figure is None else f"{figure:.2g}" for figure in figures]
        if row.mask_iou is not None:
            shown[1] = f"{row.mask_iou:.4f}"
        table.add_row(
            row.field, row.codec, f"{row.bytes_per_sample / 1024:.1f}", f"{row.relative_l2:.2g}",
            f"{row.least_cosine:.6f}", *shown,
        )  # fmt: skip
    console_for(stderr=False).print(table)


def _jobs(path: Path, overrides: list[str] | None) -> tuple[CacheConfig, list[Path], int]:
    """Return cache settings, dataset directories and batch of a recipe of kind cache or posttrain."""
    from pokevla.errors import RecipeError
    from pokevla.recipe.load import load_recipe

    recipe = load_recipe(path, overrides or []).recipe
    if recipe.kind not in _ENCODED_TOGETHER:
        raise RecipeError(f"{path} is of kind {recipe.kind}.", "`pokevla cache` takes kind cache or posttrain.")
    if recipe.feature_cache is None:
        raise RecipeError(f"{path} has no section `cache`.", "Add one that names `cache.root`.")
    return recipe.feature_cache, recipe.dataset_paths, _ENCODED_TOGETHER[recipe.kind](recipe)


def _directories(source: Path, overrides: list[str] | None) -> list[Path]:
    if source.is_dir():
        return [source]
    cache, datasets, _ = _jobs(source, overrides)
    return _find(cache, datasets)


def _find(cache: CacheConfig, datasets: list[Path]) -> list[Path]:
    """Return the directory of each dataset's cache; refuses missing, incomplete and mismatching ones."""
    from pokevla.features.cache_files import find_cache

    return [find_cache(cache.root, fingerprint, parts) for fingerprint, parts in _fingerprints(cache, datasets)]


def _fingerprints(cache: CacheConfig, datasets: list[Path]) -> list[tuple[str, dict[str, str]]]:
    """Fingerprint of each dataset's cache, and the parts that it is made of."""
    from pokevla.features.fingerprint import cache_fingerprint
    from pokevla.recipe.checking.datasets import read_dataset_info

    infos = map(read_dataset_info, datasets)
    return [cache_fingerprint(cache, info.fingerprint, info.num_views) for info in infos]


def _print_info(report: dict[str, Any]) -> None:
    counts = f"{report['num_samples']} samples, {len(report['shards'])} shards"
    typer.echo(f"{report['directory']}: {counts}, {report['disk_bytes'] / 2**20:.1f} MiB")
    for description in report["teachers"].values():
        typer.echo(f"  {description}")
    for field in report["record"]:
        shape = " x ".join(map(str, field["shape"]))
        typer.echo(f"  field {field['name']}: {shape} as {field['codec']}, {field['bytes'] / 1024:.1f} KiB a sample")
