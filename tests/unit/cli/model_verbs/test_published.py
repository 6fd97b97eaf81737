"""`pokevla models`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.cli.main import run
from pokevla.weights.published.models import MODELS


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POKEVLA_MODELS", raising=False)


def test_ls_says_licence_size_address_and_target_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "ls", "--to", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    for model in MODELS:
        assert f"{model.name}: {model.title}\n  licence   {model.licence}\n" in text
        assert f"address   {model.address()}" in text
    assert f"goes to   {tmp_path}/vggt-1b: missing" in text
    assert "size      357.7 MiB" in text


def test_ls_as_json_says_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POKEVLA_MODELS", str(tmp_path))
    (tmp_path / "sam_vit_b_01ec64.pth").write_text("another one")
    (tmp_path / "qwen2.5-0.5b").mkdir()
    (tmp_path / "qwen2.5-0.5b" / "config.json").touch()
    assert run(["models", "ls", "--json"]) == 0
    states = {row["name"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert (states["sam"], states["qwen2.5-0.5b"], states["vggt"]) == ("another file is there", "incomplete", "missing")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sam"], "Set POKEVLA_MODELS, or name a directory with --to."),
        (["--to", "x"], "name models, or give --all."),
        (["--to", "x", "sam", "--all"], "name models, or give --all."),
        (["--to", "x", "sma"], "no published model 'sma'"),
    ],
)
def test_mistakes_are_refused_before_anything_is_fetched(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(["models", "get", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_get_keeps_what_is_there_and_says_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "qwen2.5-0.5b"
    folder.mkdir()
    for file in next(model for model in MODELS if model.name == folder.name).files:
        (folder / file.name).write_text("{}")
    assert run(["models", "get", folder.name, "--to", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "licence Apache-2.0" in text
    assert text.count("is there (nothing to compare it with)") == 5
    assert text.splitlines()[-1] == f"Set this for the recipes: export POKEVLA_MODELS={tmp_path}"
