"""`pokevla model import` and `export` on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from pokevla.cli.main import run
from pokevla.weights.published import hub
from pokevla.weights.published.models import MODELS


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "qwen"
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def test_import_says_what_it_wrote_and_export_where(
    qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["model", "import", "qwen2", str(qwen), str(tmp_path / "ours")]) == 0
    assert "14 tensors" in capsys.readouterr().out
    assert run(["model", "export", "qwen2", str(tmp_path / "ours"), str(tmp_path / "again")]) == 0
    assert f"{tmp_path / 'again'}: qwen2, layout hf" in capsys.readouterr().out
    given, back = (load_file(folder / "model.safetensors") for folder in (qwen, tmp_path / "again"))
    assert given.keys() == back.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qwen3", "x", "y"], "there is no kind of weights 'qwen3'. Choose one of"),
        (["qwen2", "x", "y"], "x does not exist"),
        (["qwen2", ".", "y", "--revision", "a" * 40], "--revision is for ids at the hub"),
        (
            ["qwen2", "someone/something", "y"],
            "no commit is known for this id at the hub. Give the 40 digits of a commit",
        ),
        (["qwen2", "someone/something", "y", "--revision", "main"], "'main' is not a commit"),
        (["prismatic", ".", "y", "--with", "dino"], "--with dino is not NAME=PATH"),
    ],
)
def test_mistakes_are_refused_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(["model", "import", *arguments]) in (2, 3)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "y").exists()


class Executes:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["prismatic", "qwen2", "timm"])
def test_code_in_a_file_is_refused_in_one_line_and_not_executed(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model": {"projector": {"w": torch.zeros(1)}, "x": Executes(tmp_path / "executed")}}, tmp_path / "x.pt")
    assert run(["model", "import", kind, str(tmp_path / "x.pt"), str(tmp_path / "ours")]) == 3
    error = capsys.readouterr().err
    assert f"{tmp_path / 'x.pt'} cannot be read safely: it names the class posix.mkdir." in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pt"]


def test_a_hub_id_without_network_says_where_to_put_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POKEVLA_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert run(["model", "import", "qwen2", "Qwen/Qwen2.5-0.5B", str(tmp_path / "ours")]) == 2
    error = capsys.readouterr().err
    assert "Cannot get Qwen/Qwen2.5-0.5B at 060db6499f" in error
    assert f"into {tmp_path / 'models/Qwen2.5-0.5B'} and give that folder instead of the id" in error
    assert error.count("\n") == 1


def test_an_id_takes_the_commit_of_the_published_models() -> None:
    known = next(model for model in MODELS if model.name == "qwen2.5-0.5b")
    assert hub.pinned_revision("Qwen/Qwen2.5-0.5B", None) == known.revision


def test_a_path_that_exists_is_never_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub.is_hub_id("Qwen/Qwen2.5-0.5B")
    (tmp_path / "Qwen/Qwen2.5-0.5B").mkdir(parents=True)
    assert not hub.is_hub_id("Qwen/Qwen2.5-0.5B")
    assert not hub.is_hub_id("./models/qwen")
