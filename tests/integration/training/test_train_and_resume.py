"""`pokevla train` and `pokevla resume` as a user types them, on two ranks, killed in the middle of a run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pokevla.runs.checkpoints import list_checkpoints, read_info
from pokevla.runs.directory import read_run_recipe
from pokevla.telemetry.jsonl import read_jsonl
from pokevla.training.optimizer import rate_factor

TIMED = ("time", "samples_per_s", "data_", "step_s", "rss_gib", "tflops", "mfu")
"""Prefixes of metrics that depend on the machine's speed and load."""
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


def read_losses(run_dir: Path) -> dict[int, float]:
    """Step -> mean loss since the previous line."""
    return {row["step"]: row["loss"] for row in read_jsonl(run_dir / "metrics.jsonl") if "loss" in row}


def read_curves(run_dir: Path) -> list[dict[str, Any]]:
    """The lines of metrics, without those values."""
    rows = [row for row in read_jsonl(run_dir / "metrics.jsonl") if "loss" in row]
    return [{name: value for name, value in row.items() if not name.startswith(TIMED)} for row in rows]


def kill_after_step(command: list[str], environment: dict[str, str], run_dir: Path, step: int) -> None:
    """SIGKILL the command as soon as it has saved `step`, so it is in one of the following steps."""
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if int((re.findall(r"^step (\d+)/", line) or [0])[0]) > step + 1:
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
    assert read_curves(run_dir) == read_curves(whole)
    events = [row["event"] for row in read_jsonl(run_dir / "events.jsonl")]
    assert events.count("resumed") == 1
    assert len(json.loads((run_dir / "manifest.json").read_text())["restarts"]) == 1


def test_what_a_run_can_do_without_does_not_stop_its_resume(pokevla: Run, runs: Path, whole: Path) -> None:
    """`whole` before its export, with a last checkpoint whose marker is a folder, and damaged bookkeeping."""
    run_dir = runs / "unreadable" / "whole"
    shutil.copytree(whole, run_dir, ignore=shutil.ignore_patterns("export"))
    marker = run_dir / "checkpoints" / "step-00000012" / "COMPLETE.json"
    marker.unlink()
    marker.mkdir()
    (run_dir / "manifest.json").write_text("{")
    (run_dir / "metrics.jsonl").unlink()
    os.mkfifo(run_dir / "metrics.jsonl")
    (run_dir / "heartbeat" / "rank_00001.json").unlink()
    (run_dir / "heartbeat" / "rank_00001.json").mkdir()
    resumed = pokevla("resume", run_dir)
    assert resumed.returncode == 0, resumed.stderr
    assert exported(run_dir) == exported(whole)
    assert marker.is_file()
    damaged = [row["message"] for row in read_jsonl(run_dir / "events.jsonl") if row["event"] == "damaged"]
    assert len(damaged) == 1
    assert f"{marker} cannot be read" in damaged[0]
    assert [row["step"] for row in read_jsonl(run_dir / "metrics.jsonl") if "loss" in row][-1] == 12


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


def test_a_run_goes_on_with_half_the_ranks(pokevla: Run, runs: Path, whole: Path) -> None:
    """`whole` as it was at step 8, resumed with one rank instead of two and no other change."""
    run_dir = runs / "moved" / "whole"
    shutil.copytree(whole, run_dir, ignore=shutil.ignore_patterns("export", "step-00000012"))
    resumed = pokevla("resume", run_dir, "--ranks", 1)
    assert resumed.returncode == 0, resumed.stderr

    ours, theirs = (load_file(path / "export" / "model.safetensors") for path in (run_dir, whole))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 1e-4
    steps = [row["step"] for row in read_jsonl(run_dir / "metrics.jsonl") if "loss" in row]
    assert steps == sorted(set(steps)), "the curve folds back"
    last, undisturbed = (read_losses(path)[12] for path in (run_dir, whole))
    assert last == pytest.approx(undisturbed, abs=1e-6)
    changed = [row["changed"] for row in read_jsonl(run_dir / "events.jsonl") if row["event"] == "resumed"]
    assert changed == ["Resumed at step 8 with resources.cpu_ranks 2 -> 1, number of ranks 2 -> 1."]
    assert "cpu_ranks: 1" in (run_dir / "recipe.yaml").read_text()


def test_a_run_goes_on_elsewhere_with_its_data_moved(runs: Path, whole: Path, tiny_run_env: dict[str, str]) -> None:
    """Run folder and dataset have moved, and the working directory is another one."""
    run_dir, disk = runs / "elsewhere" / "whole", runs / "disk"
    shutil.copytree(whole, run_dir, ignore=shutil.ignore_patterns("export", "step-00000012"))
    shutil.copytree(read_run_recipe(whole).data.datasets[0].path, disk)
    command = [sys.executable, "-m", "pokevla.cli.main", "resume", str(run_dir), "data.datasets.0.path=disk"]
    subprocess.run(command, env=tiny_run_env, cwd=runs, check=True, timeout=900)
    assert exported(run_dir) == exported(whole)
    assert read_run_recipe(run_dir).data.datasets[0].path == disk


def test_a_change_of_what_is_learnt_is_refused_on_resume(pokevla: Run, runs: Path, whole: Path) -> None:
    run_dir = runs / "refused" / "whole"
    shutil.copytree(whole, run_dir, ignore=shutil.ignore_patterns("export", "checkpoints"))
    refused = pokevla("resume", run_dir, "optim.lr=0.5", "zero.stage=3", "log.every_steps=1")
    assert refused.returncode == 2
    assert "optim.lr, zero.stage cannot be changed in a run that has started" in refused.stderr


def test_manifest_names_the_features_that_were_read(whole: Path) -> None:
    caches = json.loads((whole / "manifest.json").read_text())["caches"]
    (stored,) = {tuple(read_info(folder).caches.items()) for _, folder in list_checkpoints(whole)}
    assert dict(stored) == caches
    ((dataset, fingerprint),) = caches.items()
    assert Path(dataset).name == "toy"
    assert len(fingerprint) >= 16


def test_saves_tell_what_they_cost(whole: Path) -> None:
    saved = [row for row in read_jsonl(whole / "events.jsonl") if row["event"] == "saved"]
    assert [row["step"] for row in saved] == [4, 8, 12]
    assert all(row["save_s"] > 0 and row["size_bytes"] > 100_000 for row in saved)
    assert [row["step"] for row in read_jsonl(whole / "metrics.jsonl") if "save_blocked_s" in row] == [4, 8, 12]


def test_a_finished_run_holds_what_others_read(whole: Path) -> None:
    rows = read_jsonl(whole / "metrics.jsonl")
    expected = {
        "step",
        "position",
        "loss",
        "loss/action",
        "loss/segmentation",
        "loss/focal",
        "loss/kl",
        "loss/geometry",
    }
    expected |= {"lr", "grad_norm", "grad_norm/action", "samples_per_s", "data_wait_share", "rss_gib", "time"}
    assert expected <= set(rows[0])
    judged = [row for row in rows if "val/loss" in row]
    assert judged
    assert all(row["val_swapped/loss/action"] != row["val/loss/action"] for row in judged)
    training = [row for row in rows if "loss" in row]
    assert training[-1]["step"] == 12
    assert training[-1]["position"] == 96
    assert training[-1]["loss"] < training[0]["loss"]
    assert (whole / "logs" / "rank_00001.log").is_file()


def test_tensorboard_shows_the_curves_of_the_run(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "tensorboard"))
    events.Reload()
    curves = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    rows = [row for row in read_jsonl(whole / "metrics.jsonl") if "loss" in row]
    tags = {"loss", "loss/action", "loss/segmentation", "loss/geometry", "lr", "grad_norm", "grad_norm/action"}
    tags |= {"grad_norm/segmentation", "grad_norm/geometry", "samples_per_s", "data_wait_share", "rss_gib"}
    for tag in sorted(tags):
        assert curves[tag] == pytest.approx({row["step"]: row[tag] for row in rows if tag in row}), tag
    assert list(curves["loss"]) == [1, 3, 6, 9, 12]


def test_an_exported_model_loads_and_acts(whole: Path) -> None:
    import torch

    from pokevla.weights.export import load_exported

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


def test_a_finished_run_can_be_trained_longer(pokevla: Run, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "moved"  # a run folder may be moved and renamed
    shutil.copytree(whole, run)
    refused = pokevla("resume", run, "steps=12")
    assert (refused.returncode, "Train it longer: steps=N with N above 12" in refused.stderr) == (2, True)

    done = pokevla("resume", run, "steps=16")

    assert done.returncode == 0, done.stderr
    assert [step for step in read_losses(run) if step > 12] == [15, 16]
    assert {step: loss for step, loss in read_losses(run).items() if step <= 12} == read_losses(whole)
    rates = {row["step"]: row["lr"] for row in read_jsonl(run / "metrics.jsonl") if "lr" in row}
    factor = rate_factor(16, 4, "cosine", 0.0)
    assert rates[15] == pytest.approx(1e-3 * factor(14))
    (resumed,) = [row for row in read_jsonl(run / "events.jsonl") if row["event"] == "resumed"]
    assert resumed["changed"] == "Resumed at step 12 with steps 12 -> 16."
    assert (run / "export-step-00000012" / "model.safetensors").read_bytes() == exported(whole)
    assert exported(run) != exported(whole)
    again = pokevla("resume", run, "batch.micro=1")
    assert again.returncode == 2, "an override must not be ignored"


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
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert f"{tmp_path / 'nothing'} is not a dataset" in done.stderr
    assert not (tmp_path / "runs" / "lost").exists()
