"""A published checkpoint of another project, from its files to a trial in the simulator, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pokevla.policy.policy import Policy
from tests.published_checkpoints import PlainVLA, random_observation, write_published

pytestmark = pytest.mark.simulator


def test_an_imported_vla_adapter_acts_in_libero_and_is_exported(tmp_path: Path, pokevla, recipes: Path) -> None:
    source = write_published(tmp_path / "source", PlainVLA("vla-adapter", pro=True))
    models = tmp_path / "models"
    models.mkdir()
    folder = models / "vla_adapter_spatial"
    imported = pokevla("model", "import", "vla-adapter", source, folder, "--preset", "tiny")
    assert imported.returncode == 0, imported.stderr

    images, proprio = random_observation(0)
    actions = Policy.from_pretrained(folder).act(images, proprio, ["pick up the black bowl"])
    assert actions.shape == (1, 8, 7)
    assert np.isfinite(actions).all()

    environment = {"POKEVLA_MODELS": str(models), "POKEVLA_RUNS": str(tmp_path / "runs")}
    small = pokevla("validate", recipes / "published.yaml", "accept_differences=[]", **environment)
    assert small.returncode == 2
    assert "vla-adapter was trained with image_size 256, these trials have 64" in small.stderr
    assert "vla-adapter was trained with fast_rendering false, these trials have true" in small.stderr
    evaluated = pokevla("eval", recipes / "published.yaml", **environment)
    assert evaluated.returncode == 0, evaluated.stderr
    lines = (tmp_path / "runs" / "eval_vla_adapter_spatial" / "episodes.jsonl").read_text().splitlines()
    (record,) = [json.loads(line) for line in lines]
    assert record["policy"] == "vla-adapter"
    assert record["outcome"] in ("success", "failure")
    assert record["queries"] == 2

    other = pokevla("eval", recipes / "published.yaml", "trials.suite=libero_goal", "name=goal", **environment)
    assert other.returncode == 2
    assert "no statistics of libero_goal" in other.stderr

    exported = pokevla("model", "export", "vla-adapter", folder, tmp_path / "out", "--layout", "ddp")
    assert exported.returncode == 0, exported.stderr
    (before,), (after,) = ([*place.glob("action_head--*.pt")] for place in (source, tmp_path / "out"))
    old, new = (torch.load(path, weights_only=True) for path in (before, after))
    assert old.keys() == new.keys()
    assert all(torch.equal(value, new[name]) for name, value in old.items())
