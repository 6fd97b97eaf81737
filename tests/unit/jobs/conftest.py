"""A recipe and a dataset that exist as far as the login node looks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from pokevla.recipe.load import LoadedRecipe, load_recipe

RECIPE = """\
kind: pretrain
name: walk
output: {folder}/runs
data: {{datasets: [{{path: {folder}/questions}}]}}
model: {{preset: tiny}}
optim: {{lr: 1.0e-3}}
batch: {{global: 8, micro: 2}}
steps: 10
precision: fp32
zero: {{stage: 1}}
resources: {{cpu_ranks: 2, time_limit: "01:00:00"}}
"""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A VLM dataset: its description, its table, and one shard with its index."""
    root = tmp_path / "questions"
    (root / "shards").mkdir(parents=True)
    info = {"schema_version": 1, "kind": "vlm", "fingerprint": "f" * 16, "num_samples": 40, "fields": ["jpg", "json"],
            "shards": {"toy-00000.tar": {}}}  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(info))
    parquet.write_table(pa.table({"split": ["train"] * 40}), root / "samples.parquet")
    for name in ("toy-00000.tar", "toy-00000.idx"):
        (root / "shards" / name).touch()
    return root


@pytest.fixture
def load(tmp_path: Path, dataset: Path) -> Callable[..., LoadedRecipe]:
    """The recipe, with overrides."""
    path = tmp_path / "walk.yaml"
    path.write_text(RECIPE.format(folder=tmp_path))

    def loaded(*overrides: str) -> LoadedRecipe:
        return load_recipe(path, overrides)

    return loaded
