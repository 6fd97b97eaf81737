"""Pre-training with packed sequences: killed and resumed, and on other numbers of ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pokevla.telemetry.jsonl import read_jsonl
from tests.integration.training.test_train_and_resume import exported, kill_after_step, read_curves

Run = Callable[..., subprocess.CompletedProcess[str]]
PACKED = "packing={tokens: 100}"
"""Two or three questions of the toy dataset and their pictures."""


def test_a_killed_run_resumes_to_bit_identical_weights_and_learns_what_a_padded_one_learns(
    pokevla: Run, pretrain_recipe: Callable[..., Path], tmp_path: Path, tiny_run_env: dict[str, str]
) -> None:
    settings = ["precision=fp32", "epochs=null", "steps=7", "log.every_steps=1", "log.grad_norms_every_steps=0"]
    settings += ["checkpoint.every_steps=3", "resources.cpu_ranks=1", "batch.micro=4", "loss.average=tokens"]
    for name, layout in (("whole", [PACKED]), ("padded", [])):
        done = pokevla("train", pretrain_recipe(name, tmp_path), *settings, *layout)
        assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "pokevla.cli.main", "train", str(pretrain_recipe("killed", tmp_path))]
    kill_after_step([*command, *settings, PACKED], tiny_run_env, tmp_path / "killed", step=3)
    resumed = pokevla("resume", tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr

    assert exported(tmp_path / "killed") == exported(tmp_path / "whole")
    assert read_curves(tmp_path / "killed") == read_curves(tmp_path / "whole")
    assert [row["event"] for row in read_jsonl(tmp_path / "killed" / "events.jsonl")].count("resumed") == 1
    losses = [[row["loss"] for row in read_curves(tmp_path / name)] for name in ("whole", "padded")]
    assert max(abs(one - other) for one, other in zip(*losses, strict=True)) <= 1e-4
    assert losses[0][0] - losses[0][-1] > 0.1


def test_other_numbers_of_ranks_change_nothing(
    repository: Path, pretrain_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = pretrain_recipe("elastic", tmp_path)
    recipe.write_text(recipe.read_text().replace("epochs: 2", "packing: {tokens: 60}\nloss: {average: tokens}"))
    command = [sys.executable, str(repository / "benchmarks/elastic.py"), "--quick", "--stages", "0"]
    command += ["--recipe", str(recipe), "--work", str(tmp_path), "--json", str(tmp_path / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["name"].startswith("ZeRO 0, 2 -> 1 -> 3 -> 2 ranks")
    assert row["value"] <= 1e-6
    losses = list(row["undisturbed"].values())
    assert max(losses) - min(losses) > 1e-3
