"""The first lines of a training."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pokevla.recipe.kinds import TrainingRecipe
from pokevla.runs import opening
from pokevla.runs.directory import read_run_recipe
from pokevla.runs.opening import opening_lines
from tests.unit.monitoring.run_folders import make_run, save


def lines_of(run_dir: Path, *overrides: str) -> dict[str, str]:
    recipe: TrainingRecipe = read_run_recipe(run_dir, overrides)
    return dict(line.split(maxsplit=1) for line in opening_lines(run_dir, recipe, recipe.resources.world_size))


def test_the_first_lines_say_what_starts_and_how_to_watch_it(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "one")
    lines = lines_of(run_dir, "resources.gpus_per_node=0", "resources.cpu_ranks=2")
    assert lines["run"] == f"{run_dir} (pretrain, begins at step 0)"
    assert lines["device"] == f"CPU of {socket.gethostname()}"
    assert lines["ranks"].startswith("2; 32 samples a step = 16 x 1 accumulation x 2 ranks; ZeRO stage")
    assert lines["data"] == "d/d"  # not there: the ranks say what is wrong with it
    assert lines["steps"].startswith("100; a checkpoint every")
    assert lines["watch"] == f"pokevla watch {run_dir}"


def test_a_resumed_run_says_where_it_continues(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "one")
    save(run_dir, 40)
    assert "continues after step 40" in lines_of(run_dir)["run"]


def test_gpus_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "gpu_names", lambda: ["NVIDIA H200", "NVIDIA H200"])
    run_dir = make_run(tmp_path / "one")
    lines = lines_of(run_dir, "resources.gpus_per_node=2")
    assert lines["device"] == f"2 x NVIDIA H200 of {socket.gethostname()}"
