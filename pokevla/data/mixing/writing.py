"""The datasets of a mixture and `mixture.json`, put together from finished parts."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pokevla.data.mixing.drawing import read_drawn
from pokevla.data.mixing.summary import SUMMARY_NAME, MixtureSummary
from pokevla.data.sources.provenance import made_by
from pokevla.data.tables.questions import schema_for, table_row
from pokevla.data.writer import REMEDY, DatasetWriter, encode_json
from pokevla.files.ownership import Ownership
from pokevla.files.texts import write_json
from pokevla.files.writing import atomic_folder
from pokevla.recipe.checking.datasets import read_info
from pokevla.recipe.schema import MixtureRecipe


def write_mixture(
    recipe: MixtureRecipe,
    summary: MixtureSummary,
    folder: Path,
    numbers: Mapping[str, Sequence[int]],
    several_images: Container[str],
    replaces: Ownership | None,
    on_written: Callable[[Path], None] | None = None,
) -> MixtureSummary:
    """Write `output/name`, complete or not at all; returns the summary with its datasets.

    Args:
        folder: of the finished parts.
        numbers: the parts of each dataset, in order.
        several_images: the datasets that get samples of several images.
        replaces: refuses a folder of the same name that must stay; None: any.
        on_written: called with the complete folder before it gets its name, so that what it adds is there as well.

    Raises:
        DataError: a part is damaged, the folder exists, or writing failed.
    """
    with atomic_folder(recipe.output / recipe.name, replaces=replaces, remedy=REMEDY) as new:
        datasets = {}
        for name, parts in numbers.items():
            schema = schema_for(several_images=name in several_images)
            datasets[name] = _write(recipe, summary, folder, new / name, parts, schema)
        complete = replace(summary, datasets=datasets)
        write_json(new / SUMMARY_NAME, complete.to_json(), indent=1)
        if on_written is not None:
            on_written(new)
    return complete


def _write(
    recipe: MixtureRecipe, summary: MixtureSummary, folder: Path, out: Path, parts: Sequence[int], schema: pa.Schema
) -> dict[str, Any]:
    """Write one dataset; returns what the summary says about it."""
    categories: dict[str, int] = {}
    sources: dict[str, int] = {}
    licenses: set[str] = set()
    with DatasetWriter(out, group=out.name, samples=schema, shard_samples=recipe.shard_samples) as writer:
        for number in parts:
            for record, members in read_drawn(folder, number):
                writer.add_sample(record["key"], {**members, "json": encode_json(record)}, table_row(record))
                for counts, name in ((categories, record["category"]), (sources, record["source"])):
                    counts[name] = counts.get(name, 0) + 1
                licenses.add(record.get("license") or "not stated")
        writer.finish(
            {
                "statistics": None,
                "sources": [{"name": name, "samples": count} for name, count in sorted(sources.items())],
                "categories": dict(sorted(categories.items())),
                "license": "; ".join(sorted(licenses)),
                "made_by": made_by("mix", mixture=recipe.name, seed=recipe.seed, **_settings(recipe)),
            }
        )
    return _facts(out)


def _settings(recipe: MixtureRecipe) -> dict[str, Any]:
    """What of the recipe says what was taken: no paths, and nothing that depends on how inputs are divided."""
    return {
        "split": recipe.split,
        "categories": {name: each.model_dump(mode="json") for name, each in sorted(recipe.categories.items())},
        "answers": recipe.answers.model_dump(mode="json"),
        "shard_samples": recipe.shard_samples,
    }


def _facts(out: Path) -> dict[str, Any]:
    info = read_info(out)
    size = sum(shard["size_bytes"] for shard in info["shards"].values())
    return {"fingerprint": info["fingerprint"], "samples": info["num_samples"], "size_bytes": size}
