"""`pokevla train` and `pokevla resume` as a user types them, two ranks, killed in mid-run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pokevla.telemetry.jsonl import read_jsonl

pytestmark = pytest.mark.engine
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def whole(whole_run: Path) -> Path:
    """An uninterrupted run."""
    return whole_run


def exported(run_dir: Path) -> bytes:
    return (run_dir / "export" / "model.safetensors").read_bytes()


def kill_after_step(command: list[str], environment: dict[str, str], run_dir: Path, step: int) -> None:
    """SIGKILL the command as soon as it has saved `step`: it is then somewhere in the steps after it."""
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(f"step {step + 2} "):  # the next line in the log after the save
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run_dir / "export").exists()


def test_killed_run_resumes_to_bit_identical_weights(
    pokevla: Run, write_recipe: Callable[..., Path], runs: Path, whole: Path, tiny_run_env: dict[str, str]
) -> None:
    run_dir = runs / "killed"
    command = [sys.executable, "-m", "pokevla.cli.main", "train", str(write_recipe("killed", runs))]
    kill_after_step(command, tiny_run_env, run_dir, step=4)
    resumed = pokevla("resume", run_dir)
    assert resumed.returncode == 0, resumed.stderr
    assert exported(run_dir) == exported(whole)
    steps = [row["step"] for row in read_jsonl(run_dir / "metrics.jsonl") if "loss" in row]
    assert steps == sorted(set(steps)), "curves fold back"
    events = [row["event"] for row in read_jsonl(run_dir / "events.jsonl")]
    assert events.count("resumed") == 1
    assert len(json.loads((run_dir / "manifest.json").read_text())["restarts"]) == 1


def test_run_killed_before_its_first_checkpoint_starts_again(
    pokevla: Run, write_recipe: Callable[..., Path], runs: Path, whole: Path, tiny_run_env: dict[str, str]
) -> None:
    run_dir = runs / "early"
    command = [sys.executable, "-m", "pokevla.cli.main", "train", str(write_recipe("early", runs))]
    kill_after_step(command, tiny_run_env, run_dir, step=0)
    for folder in (run_dir / "checkpoints").glob("step-*"):  # the kill may have come late on a busy machine
        (folder / "COMPLETE.json").unlink()
    resumed = pokevla("resume", run_dir)
    assert resumed.returncode == 0, resumed.stderr
    assert exported(run_dir) == exported(whole)


def test_a_finished_run_holds_what_others_read(whole: Path) -> None:
    rows = read_jsonl(whole / "metrics.jsonl")
    wanted = {"step", "position", "loss", "loss/action", "loss/segmentation", "loss/focal", "loss/kl", "loss/geometry"}
    wanted |= {"lr", "grad_norm", "grad_norm/action", "samples_per_s", "data_wait_share", "rss_gib", "time"}
    assert wanted <= set(rows[0])
    judged = [row for row in rows if "val/loss" in row]
    assert judged
    assert all(row["val_swapped/loss/action"] != row["val/loss/action"] for row in judged)
    training = [row for row in rows if "loss" in row]
    assert training[-1]["step"] == 12
    assert training[-1]["position"] == 96
    assert training[-1]["loss"] < training[0]["loss"]
    assert list((whole / "tensorboard").iterdir())
    assert (whole / "logs" / "rank_00001.log").is_file()


def test_an_exported_model_loads_and_acts(whole: Path) -> None:
    import torch

    from pokevla.checkpoint.export import load_exported

    model, config, tokenizer, statistics = load_exported(whole)
    assert config["kind"] == "pokevla"
    assert statistics is not None
    assert (tokenizer / "tokenizer_config.json").is_file()
    size = config["image_size"]
    ids = torch.ones(1, 5, dtype=torch.int64)
    with torch.no_grad():
        output: Any = model(torch.rand(1, 2, 3, size, size), ids, ids.bool(), torch.zeros(1, 8), with_geometry=False)
    assert output.actions.shape == (1, config["chunk_length"], 7)


def test_a_second_run_of_the_same_name_is_refused(pokevla: Run, write_recipe: Callable[..., Path], whole: Path) -> None:
    again = pokevla("train", write_recipe("whole", whole.parent))
    assert again.returncode == 2
    assert f"pokevla resume {whole}" in again.stderr
    assert len(again.stderr.strip().splitlines()[-1:]) == 1


def test_resuming_a_finished_run_says_so(pokevla: Run, whole: Path) -> None:
    before = exported(whole)
    done = pokevla("resume", whole)
    assert done.returncode == 0
    assert "is finished: 12 steps" in done.stdout
    assert exported(whole) == before


def test_checkpoints_are_listed_and_exported_again(pokevla: Run, whole: Path, tmp_path: Path) -> None:
    listed = json.loads(pokevla("ckpt", "inspect", whole, "--json").stdout)
    assert [(row["step"], row["state"]) for row in listed["checkpoints"]] == [(8, "good"), (12, "good")]
    done = pokevla("ckpt", "export", whole, tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == exported(whole)
    assert pokevla("ckpt", "export", whole, tmp_path / "again").returncode == 3
    assert pokevla("ckpt", "export", whole, tmp_path / "other", "--step", 3).returncode == 3


def test_a_folder_that_is_no_run_is_refused(pokevla: Run, tmp_path: Path) -> None:
    done = pokevla("resume", tmp_path)
    assert done.returncode == 2
    assert "is not a run directory" in done.stderr


def test_a_dataset_that_is_missing_leaves_no_run_behind(
    pokevla: Run, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = write_recipe("lost", tmp_path / "runs")
    done = pokevla("train", recipe, f"data.datasets.0.path={tmp_path / 'nothing'}")
    assert done.returncode in (2, 3)
    assert not (tmp_path / "runs" / "lost").exists()
