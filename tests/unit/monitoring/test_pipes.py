"""A pipe in place of a file of a run makes nobody wait for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pokevla.cli.main import run
from tests.unit.monitoring.run_folders import append, event, make_run, save, train_line

FILES = ("recipe.yaml", "manifest.json", "events.jsonl", "metrics.jsonl", "slurm.json", "heartbeat/rank_00000.json",
         "checkpoints/step-00000040/COMPLETE.json", "checkpoints/step-00000040/HEALTHY", ".lock",
         "export/config.json", "statistics.json")  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FILES)
def test_no_verb_hangs_on_a_pipe(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "runs" / "one")
    append(folder / "events.jsonl", event("started", 0, step=0))
    append(folder / "metrics.jsonl", train_line(10, 20))
    save(folder, 40)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)

    for command in (["runs", "ls", folder.parent], ["runs", "show", folder], ["watch", folder, "--once"],
                    ["ckpt", "inspect", folder], ["ckpt", "verify", folder], ["resume", folder]):  # fmt: skip
        assert run([str(word) for word in command]) in (0, 1, 2, 3)
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "--debug" not in error, error
