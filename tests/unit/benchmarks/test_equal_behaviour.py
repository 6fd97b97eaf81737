"""Steps, failures and exit codes of `benchmarks/equal_behaviour.py`, with stored results."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("equal_behaviour")


def store(script: ModuleType, work: Path, name: str, values: dict[str, Any]) -> None:
    """Results of a step of HEAD, as stored by an earlier call in `work`."""
    sha = script.full_hash("HEAD")
    folder = work / f"{sha[:12]}-quick" / sha[:12] / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(values))


@pytest.fixture
def work(script: ModuleType, tmp_path: Path) -> Path:
    """Compare HEAD with itself, with the results of every step stored."""
    for name in ("data", *script.OWN):
        store(script, tmp_path, name, {"loss": [[1, 0.5], [2, 0.25]]})
    for name, (reference, _) in script.CROSS.items():
        store(script, tmp_path, name, script.ACCEPTED if reference is None else {"loss": [[1, 0.5], [2, 0.25]]})
    return tmp_path


def exit_code(script: ModuleType, work: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", ["equal_behaviour.py", "HEAD", "HEAD", "--quick", "--work", str(work)])
    with pytest.raises(SystemExit) as leaving:
        script.main()
    return leaving.value.code


def test_equal_results_end_with_0(
    script: ModuleType, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(script, work, monkeypatch) == 0
    rows = len(script.OWN) + len(script.CROSS)
    assert capsys.readouterr().out.splitlines()[-1] == f"{rows} rows, 0 not equal"


def test_one_other_loss_in_a_resumed_run_ends_with_1(
    script: ModuleType, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store(script, work, "post-training of BASE, resumed", {"loss": [[1, 0.5], [2, 0.2500000001]]})
    assert exit_code(script, work, monkeypatch) == 1
    different = [line for line in capsys.readouterr().out.splitlines() if "| NO" in line]
    assert len(different) == 1
    assert different[0].startswith("post-training of BASE, resumed: loss")
    assert different[0].endswith("NO: first at [2, 0.25] / [2, 0.2500000001]")


def test_an_unknown_commit_ends_with_2(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["equal_behaviour.py", "HEAD", "no-such-branch", "--work", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert "no-such-branch is not a commit of" in capsys.readouterr().err


def test_a_copied_run_holds_nothing_after_its_oldest_checkpoint(script: ModuleType, tmp_path: Path) -> None:
    for folder in ("checkpoints/step-00000009", "checkpoints/step-00000012", "export"):
        (tmp_path / "run" / folder).mkdir(parents=True)
    lines = [f'{{"step": {step}}}\n' for step in (8, 9, 10, 12)]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines))

    copy = importlib.import_module("behaviour_steps").copy_unfinished(tmp_path / "run", tmp_path / "copy")

    assert sorted(path.name for path in copy.rglob("*")) == ["checkpoints", "metrics.jsonl", "step-00000009"]
    assert (copy / "metrics.jsonl").read_text() == "".join(lines[:2])
    assert (tmp_path / "run" / "export").is_dir()


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("error: the cache has format 1. Rebuild it with: pokevla cache build RECIPE", True),
        ("error: the cache has format 1.", False),
    ],
)
def test_only_a_refusal_that_names_a_command_has_a_remedy(script: ModuleType, output: str, remedy: bool) -> None:
    assert script.CommandFailed(3, f"loading\n{output}\n", Path("log")).remedy is remedy
    assert script.CommandFailed(1, output, Path("log")).remedy is False


def test_a_failing_step_fails_every_value_that_was_expected(script: ModuleType, tmp_path: Path) -> None:
    def fail(*_: Any) -> dict[str, Any]:
        raise script.CommandFailed(1, "error: KeyError: features.", Path("log"))

    checkout = script.Checkout(tmp_path, "0" * 40)
    values = script.attempt("step", fail, checkout, script.QUICK, {"loss": 1.0, "weights": "ab"})
    assert {row.equal.split(" (")[0] for row in script.compare("step", {"loss": 1.0, "weights": "ab"}, values)} == {
        "NO: 1.0 / failed: KeyError: features.",
        "NO: ab / failed: KeyError: features.",
    }


def test_the_probe_notes_the_samples_and_actions_of_a_command(tmp_path: Path) -> None:
    """The package has another layout: only its entry point has the known name."""
    package = tmp_path / "pokevla" / "cli"
    package.mkdir(parents=True)
    for folder in (package.parent, package):  # a folder without it would yield to the checkout, later in sys.path
        (folder / "__init__.py").touch()
    (package / "main.py").write_text(
        "import dataclasses, torch\n"
        "@dataclasses.dataclass\n"
        "class Batch:\n"
        "    keys: list\n"
        "    positions: torch.Tensor\n"
        "    features: dict\n"
        "    views: list\n"
        "class Model(torch.nn.Module):\n"
        "    def forward(self, batch):\n"
        "        self.actions = torch.ones(2, 8, 7)\n"
        "        return self\n"
        "batch = Batch(['a', 'b'], torch.arange(2), {'depth': torch.zeros(2, 3)}, ['base', 'left', 'right'])\n"
        "Model()(batch)\n"
        "with torch.no_grad():\n"
        "    Model()(dataclasses.replace(batch, keys=['c', 'd']))\n"
        "raise SystemExit(3)\n"
    )
    out = tmp_path / "notes.json"
    command = [sys.executable, str(ROOT / "benchmarks/model_probe.py"), str(out), "train"]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path)}, check=False, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    notes = json.loads(out.read_text())
    assert [sample["keys"] for sample in notes["training"]] == ["a", "b"]
    assert [sample["keys"] for sample in notes["validation"]] == ["c", "d"]
    first, second = notes["training"]
    assert sorted(first) == ["features.depth", "keys", "positions", "views"]
    assert first["positions"] != second["positions"]
    assert first["features.depth"] == second["features.depth"]
    assert len(notes["actions"]) == 1
