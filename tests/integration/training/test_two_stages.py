"""Pre-training, then post-training from its run directory, through the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pokevla.telemetry.jsonl import read_jsonl
from pokevla.weights.export import load_exported
from tests.published_sam import write_official

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def pretrained(
    repository: Path, pretrain_recipe: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Run directory of a pre-training."""
    runs = tmp_path_factory.mktemp("pretrained")
    command = [sys.executable, "-m", "pokevla.cli.main", "train", str(pretrain_recipe("vlm", runs))]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return runs / "vlm"


def test_posttraining_starts_from_the_weights_of_pretraining(
    pokevla: Run, pretrained: Path, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [row for row in read_jsonl(pretrained / "metrics.jsonl") if "loss" in row]
    assert rows[-1]["step"] == 8  # 2 epochs of 32 training samples, 8 per step
    assert rows[-1]["loss/next_token"] < rows[0]["loss/next_token"]
    assert "grad_norm/next_token" in rows[0]
    vlm, config, _, statistics = load_exported(pretrained)
    assert config["kind"] == "pokevlm"
    assert statistics is None

    # Frozen VLM: its weights after post-training must equal those after pre-training, bit for bit.
    second = pokevla(
        "train",
        write_recipe("vla", tmp_path),
        f"model.vlm={pretrained}",
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
    pokevla: Run,
    pretrained: Path,
    pretrain_recipe: Callable[..., Path],
    write_recipe: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """The VLM of the first stage, then the SAM checkpoint from which the mask decoders start."""
    short = ("steps=1", "resources.cpu_ranks=1")
    vlm, sam, kept = tmp_path / "vlm", tmp_path / "sam.pth", tmp_path / "kept"
    shutil.copytree(pretrained, vlm)
    matrix = write_official(sam)["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    for command in (
        (pretrain_recipe("other", tmp_path), "seed=2", "epochs=null"),
        (write_recipe("vla", tmp_path), f"model.vlm={vlm}", f"model.sam={sam}"),
    ):
        done = pokevla("train", *command, *short)
        assert done.returncode == 0, done.stderr
    trained = load_exported(tmp_path / "vla")[0].state_dict()
    for stage in ("coarse", "fine"):
        assert torch.equal(trained[f"{stage}_prompt_encoder.shared_embedding.positional_embedding"], matrix)

    def exported() -> subprocess.CompletedProcess[str]:
        return pokevla("ckpt", "export", tmp_path / "vla", tmp_path / "out")

    (vlm / "export").rename(kept)
    shutil.copytree(tmp_path / "other" / "export", vlm / "export")
    others = [exported()]
    shutil.rmtree(vlm / "export")
    kept.rename(vlm / "export")
    sam.rename(kept)
    write_official(sam, seed=1)
    others.append(exported())
    for refused in others:
        assert refused.returncode == 3
        assert "base model is not the one" in refused.stderr
        assert not (tmp_path / "out").exists()
    kept.rename(sam)
    done = exported()
    assert done.returncode == 0, done.stderr


def test_model_vlm_that_is_no_pokevlm_is_refused(
    pokevla: Run, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    done = pokevla("train", write_recipe("vla", tmp_path), f"model.vlm={tmp_path / 'nothing'}")
    assert done.returncode in (2, 3)
    assert "nothing" in done.stderr
