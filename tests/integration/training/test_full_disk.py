"""The disk of a run fills up between two saves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import mounted_disk


def losses(run_dir: Path) -> dict[int, float]:
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_training_goes_on_to_its_last_save_and_resumes_to_the_same_end(
    tmp_path: Path,
    write_recipe: Callable[..., Path],
    whole_run: Path,
    tiny_run_env: dict[str, str],
    pokevla: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    with mounted_disk(tmp_path / "disk", "64m") as disk:
        run = disk.folder / "full"
        command = [sys.executable, "-m", "pokevla.cli.main", "train", str(write_recipe("full", disk.folder))]
        process = subprocess.Popen(command, env=tiny_run_env, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if re.match(r"step 6\b", line):
                disk.fill()
                break
        rest = process.stderr.read()
        assert process.wait(300) == 3, rest
        # The last block of the log decides whether the rank's own message still fits into it.
        assert "No room to write" in rest or f"The disk of {run / 'logs'} is full" in rest
        assert "Free some space" in rest
        on_full_disk = losses(run)
        disk.free()

        resumed = pokevla("resume", run)

        assert resumed.returncode == 0, resumed.stderr
        assert 6 in on_full_disk
        assert losses(run) == losses(whole_run)
        exported = [folder / "export" / "model.safetensors" for folder in (run, whole_run)]
        assert exported[0].read_bytes() == exported[1].read_bytes()
