"""Paths on the command line are those of recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.cli.main import run
from tests.unit.recipe.test_load import PRETRAIN, write


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NOWHERE", raising=False)
    return write(tmp_path, PRETRAIN)


@pytest.mark.parametrize("spelled", ["~/x.yaml", "$HOME/x.yaml", "${HOME}/x.yaml"])
def test_arguments_and_options_are_expanded(spelled: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipe", "show", spelled]) == 0
    assert run(["recipe", "explain", "optim.lr", f"--root={spelled.rpartition('/')[0]}"]) == 0
    assert "set in" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [["recipe", "show"], ["validate"], ["train"], ["data", "stats"], ["data", "convert", "libero", "x"]]
)
def test_an_unknown_variable_is_named(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*command, "$NOWHERE/x"]) == 2
    assert "uses the environment variable NOWHERE, which is not set" in capsys.readouterr().err


def test_no_folder_named_tilde_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["report", ".", "--out=~/report.html"]) == 2  # nothing to report about
    assert run(["data", "show", "~/none", "--image=~/sheet.png"]) == 3
    assert not (tmp_path / "~").exists()
