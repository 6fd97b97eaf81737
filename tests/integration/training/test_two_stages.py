"""Pre-training, then post-training from its run directory, through the command line."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch

from pokevla.telemetry.jsonl import read_jsonl
from pokevla.weights.export import load_exported

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_posttraining_starts_from_the_weights_of_pretraining(
    pokevla: Run, pretrain_recipe: Callable[..., Path], write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    first = pokevla("train", pretrain_recipe("vlm", tmp_path))
    assert first.returncode == 0, first.stderr
    rows = [row for row in read_jsonl(tmp_path / "vlm" / "metrics.jsonl") if "loss" in row]
    assert rows[-1]["step"] == 8  # 2 epochs of 32 training samples, 8 per step
    assert rows[-1]["loss/next_token"] < rows[0]["loss/next_token"]
    assert "grad_norm/next_token" in rows[0]
    vlm, config, _, statistics = load_exported(tmp_path / "vlm")
    assert config["kind"] == "pokevlm"
    assert statistics is None

    # Frozen VLM: its weights after post-training must equal those after pre-training, bit for bit.
    second = pokevla(
        "train",
        write_recipe("vla", tmp_path),
        f"model.vlm={tmp_path / 'vlm'}",
        "trainable.vision=frozen",
        "trainable.projector=frozen",
        "trainable.language_model=frozen",
        "lora=null",
        "log.grad_norms_every_steps=0",
        "steps=2",
    )
    assert second.returncode == 0, second.stderr
    vla, _, _, _ = load_exported(tmp_path / "vla")
    before, after = vlm.state_dict(), vla.vlm.state_dict()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_base_model_exchanged_after_training_is_refused_on_export(
    pokevla: Run, pretrain_recipe: Callable[..., Path], write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    for name, seed in (("vlm", 1), ("other", 2)):
        done = pokevla("train", pretrain_recipe(name, tmp_path), f"seed={seed}", "epochs=null", "steps=1")
        assert done.returncode == 0, done.stderr
    done = pokevla("train", write_recipe("vla", tmp_path), f"model.vlm={tmp_path / 'vlm'}", "steps=1")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "vlm" / "export")
    shutil.copytree(tmp_path / "other" / "export", tmp_path / "vlm" / "export")
    refused = pokevla("ckpt", "export", tmp_path / "vla", tmp_path / "out")
    assert refused.returncode == 3
    assert "base model is not the one" in refused.stderr
    assert not (tmp_path / "out").exists()


def test_model_vlm_that_is_no_pokevlm_is_refused(
    pokevla: Run, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    done = pokevla("train", write_recipe("vla", tmp_path), f"model.vlm={tmp_path / 'nothing'}")
    assert done.returncode in (2, 3)
    assert "nothing" in done.stderr
