"""One training that changes its number of ranks three times, as `benchmarks/elastic.py` does it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pokevla.checkpoint.universal import convert
from pokevla.runs.checkpoints import CONVERTED, MARKER, checkpoint_folder
from pokevla.runs.verification import verify
from pokevla.telemetry.jsonl import read_jsonl
from pokevla.telemetry.manifest import read_manifest

STAGES = [0, 2, 3]
"""ZeRO 1 has the files of ZeRO 2; `python benchmarks/elastic.py` runs it too."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("elastic")


@pytest.fixture(scope="module")
def rows(repository: Path, write_recipe: Callable[..., Path], work: Path) -> dict[int, dict[str, Any]]:
    """ZeRO stage -> row of the benchmark: LoRA post-training with dropout and a frozen image encoder, 8 steps."""
    recipe = write_recipe("elastic", work)
    # Weight decay so strong that a decaying bias or norm (a bug) immediately shows in the loss.
    recipe.write_text(recipe.read_text().replace("optim: {", "optim: {weight_decay: 3.0, "))
    command = [sys.executable, str(repository / "benchmarks/elastic.py"), "--quick", "--stages", *map(str, STAGES)]
    command += ["--recipe", str(recipe), "--work", str(work), "--json", str(work / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(STAGES, json.loads((work / "out.json").read_text())["rows"], strict=True))


@pytest.mark.parametrize("stage", STAGES)
def test_the_loss_is_that_of_the_run_left_alone(rows: dict[int, dict[str, Any]], stage: int) -> None:
    row = rows[stage]
    assert row["name"].startswith(f"ZeRO {stage}, 2 -> 1 -> 3 -> 2 ranks")
    assert row["value"] <= 1e-6
    # The curve moves a thousand times more than that, so a state that was not restored would show.
    losses = list(row["undisturbed"].values())
    assert max(losses) - min(losses) > 1e-3


@pytest.mark.parametrize("stage", STAGES)
def test_each_change_is_told_in_one_sentence(rows: dict[int, dict[str, Any]], work: Path, stage: int) -> None:
    run_dir = work / "moved" / f"stage-{stage}"
    changes = [row.get("changed") for row in read_jsonl(run_dir / "events.jsonl") if row["event"] == "resumed"]
    assert changes == [
        "Resumed at step 2 with resources.cpu_ranks 2 -> 1, number of ranks 2 -> 1.",
        "Resumed at step 4 with resources.cpu_ranks 1 -> 3, number of ranks 1 -> 3.",
        "Resumed at step 6 with resources.cpu_ranks 3 -> 2, number of ranks 3 -> 2.",
    ]
    assert [restart["changed"] for restart in read_manifest(run_dir)["restarts"]] == changes


@pytest.mark.parametrize("stage", STAGES[1:])
def test_a_conversion_is_whole_whatever_one_cut_short_has_left(
    rows: dict[int, dict[str, Any]], work: Path, stage: int
) -> None:
    folder = checkpoint_folder(work / "moved" / f"stage-{stage}", 8)
    info = verify(folder)
    for name in (CONVERTED, f".tmp-{CONVERTED}/{CONVERTED}"):  # killed between two files, or before the marker
        (folder / name / "zero").mkdir(parents=True)
        (folder / name / "zero" / "half.pt").write_bytes(b"half")

    made = convert(folder, info)

    described = json.loads((made / MARKER).read_text())
    sizes = {str(path.relative_to(made)): path.stat().st_size for path in made.rglob("*") if path.is_file()}
    del sizes[MARKER]
    assert {file["name"]: file["size"] for file in described["files"]} == sizes
    assert "zero/half.pt" not in sizes
    assert not list(folder.glob(".tmp*"))
    assert verify(folder) == info


def test_a_conversion_goes_when_the_next_checkpoint_is_there(rows: dict[int, dict[str, Any]], work: Path) -> None:
    for stage in STAGES:
        assert not (checkpoint_folder(work / "moved" / f"stage-{stage}", 6) / CONVERTED).exists()
