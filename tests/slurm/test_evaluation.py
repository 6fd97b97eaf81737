"""An evaluation as a job array over LIBERO's tasks, in the real simulator."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pokevla.jobs.record import read_jobs, task_log
from pokevla.jobs.tracking import job_state

pytestmark = [pytest.mark.simulator, pytest.mark.timeout(1800)]
RECIPE = """\
kind: eval
name: trials
output: {output}
trials: {{suite: libero_object, tasks: [2, 5], init_states: [0, 1], max_steps: 4, settle_steps: 1}}
policies: [{{name: replay, kind: replay, dataset: {dataset}}}]
image_size: 64
fast_rendering: true
workers: 1
videos: 0
"""


def test_tasks_are_shared_out_and_only_missing_ones_are_done_again(
    pokevla, shared: Path, toys: ModuleType, wait_until: Callable[..., None]
) -> None:
    dataset = toys.write_toy_dataset(shared / "replayed")
    recipe = shared / "trials.yaml"
    recipe.write_text(RECIPE.format(output=shared / "runs", dataset=dataset))
    folder = shared / "runs" / "trials"

    def submit_and_wait() -> str:
        done = pokevla("submit", recipe)
        assert done.returncode == 0, done.stderr
        job = read_jobs(folder)[-1].job_id
        wait_until("the trials end", lambda: not job_state(job).is_active)
        assert job_state(job).state == "COMPLETED", task_log(folder, job).read_text()
        return done.stdout

    assert "job array of 2 tasks for 2 missing parts of the evaluation" in submit_and_wait()
    assert read_jobs(folder)[0].array_size == 2
    first = json.loads((folder / "summary.json").read_text())
    assert first["policies"]["replay"]["trials"] == 2
    kept = (folder / "parts" / "libero_object-02" / "episodes.jsonl").stat().st_mtime_ns

    again = pokevla("submit", recipe)
    assert again.returncode == 2
    assert "is complete" in again.stderr
    shutil.rmtree(folder / "parts" / "libero_object-05")
    (folder / "summary.json").unlink()
    assert "one task: at most one part of the evaluation is missing" in submit_and_wait()
    assert read_jobs(folder)[1].array_size == 0
    assert (folder / "parts" / "libero_object-02" / "episodes.jsonl").stat().st_mtime_ns == kept
    assert json.loads((folder / "summary.json").read_text())["policies"].keys() == first["policies"].keys()
