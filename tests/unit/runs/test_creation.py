"""A run directory appears whole, once, and is trained by one job at a time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from pokevla.errors import DataError, UsageError
from pokevla.files.holders import this_process
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import PretrainRecipe
from pokevla.runs.creation import (
    await_rank_0,
    create_run,
    is_locked,
    refuse_rank_elsewhere,
    run_lock,
    set_failed_run_aside,
)
from pokevla.runs.directory import read_run_recipe
from pokevla.runs.ending import finished_step

RECIPE = """\
kind: pretrain
name: one
output: {output}
data: {{datasets: [{{path: {dataset}}}]}}
model: {{preset: tiny}}
optim: {{lr: 1.0e-3}}
batch: {{global: 4, micro: 2}}
steps: 2
"""


def write(tmp_path: Path, with_dataset: bool = True) -> Path:
    dataset = tmp_path / "data"
    if with_dataset:
        dataset.mkdir()
        info = {"schema_version": 1, "kind": "vlm", "fingerprint": "f", "num_samples": 1, "fields": [], "shards": {}}
        (dataset / "dataset.json").write_text(json.dumps(info))
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(output=tmp_path / "runs", dataset=dataset))
    return path


def make(tmp_path: Path) -> Path:
    loaded = load_recipe(write(tmp_path))
    assert isinstance(loaded.recipe, PretrainRecipe)
    return create_run(loaded, loaded.recipe)


def test_a_new_run_holds_its_resolved_recipe_and_manifest(tmp_path: Path) -> None:
    run_dir = make(tmp_path)
    assert run_dir == tmp_path / "runs" / "one"
    assert {"recipe.yaml", "manifest.json"} <= {path.name for path in run_dir.iterdir()}
    assert read_run_recipe(run_dir).steps == 2
    assert finished_step(run_dir) is None


def test_an_existing_run_is_never_overwritten(tmp_path: Path) -> None:
    run_dir = make(tmp_path)
    loaded = load_recipe(tmp_path / "recipe.yaml")
    assert isinstance(loaded.recipe, PretrainRecipe)
    with pytest.raises(UsageError, match=f"pokevla resume {run_dir}"):
        create_run(loaded, loaded.recipe)


def test_a_missing_dataset_leaves_nothing_behind(tmp_path: Path) -> None:
    loaded = load_recipe(write(tmp_path, with_dataset=False))
    assert isinstance(loaded.recipe, PretrainRecipe)
    with pytest.raises(DataError):
        create_run(loaded, loaded.recipe)
    runs = tmp_path / "runs"
    assert not runs.exists() or not list(runs.iterdir())


def test_a_run_is_trained_by_one_job_at_a_time(tmp_path: Path) -> None:
    with run_lock(tmp_path) as descriptor:
        with (
            pytest.raises(UsageError, match=r"in use by another process. It is process \d+ on \S+ .*, since 20"),
            run_lock(tmp_path),
        ):
            pass
        inherited = os.dup(descriptor)  # as a rank has it
    try:
        with pytest.raises(UsageError), run_lock(tmp_path):
            pass
    finally:
        os.close(inherited)
    with run_lock(tmp_path):
        pass


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run directory"):
        read_run_recipe(tmp_path)


def test_looking_at_the_lock_tells_whether_a_run_is_trained_and_turns_nobody_away(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with run_lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    onlooker = os.open(tmp_path / ".lock", os.O_RDONLY)
    fcntl.flock(onlooker, fcntl.LOCK_SH)  # somebody is looking just now
    threading.Timer(0.05, os.close, [onlooker]).start()
    with run_lock(tmp_path):
        assert is_locked(tmp_path)


def test_the_other_ranks_wait_until_rank_0_of_their_job_holds_the_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").touch()
    with run_lock(tmp_path, holder=this_process(rendezvous="node-1:29500")):
        await_rank_0(tmp_path, "node-1:29500", timeout_s=0.0)
        with pytest.raises(UsageError, match=r"in use by process \d+ on \S+ .*, since 20"):
            await_rank_0(tmp_path, "node-2:29500", timeout_s=60.0)
    with pytest.raises(UsageError, match="Rank 0 has not started to train"):
        await_rank_0(tmp_path, "node-1:29500", timeout_s=0.0)


def test_a_rank_with_a_fresh_heartbeat_on_another_machine_trains_the_run(tmp_path: Path) -> None:
    def write(host: str, phase: str) -> None:
        beat = {"rank": 1, "host": host, "pid": 7, "step": 3, "phase": phase, "phase_s": 1.0, "progress": 5}
        (tmp_path / "heartbeat").mkdir(exist_ok=True)
        (tmp_path / "heartbeat" / "rank_00001.json").write_text(json.dumps({**beat, "every_s": 10.0, "time": "now"}))

    write("elsewhere", "forward")
    with pytest.raises(UsageError, match=r"trained by rank 1 on elsewhere \(process 7\)"):
        refuse_rank_elsewhere(tmp_path)
    os.utime(tmp_path / "heartbeat" / "rank_00001.json", (time.time() - 60,) * 2)
    refuse_rank_elsewhere(tmp_path)
    write("elsewhere", "stopped")
    refuse_rank_elsewhere(tmp_path)
    write(socket.gethostname(), "forward")
    refuse_rank_elsewhere(tmp_path)


def test_a_run_that_failed_before_its_first_checkpoint_can_be_begun_again(tmp_path: Path) -> None:
    def begin() -> Path:
        loaded = load_recipe(recipe)
        assert isinstance(loaded.recipe, PretrainRecipe)
        return create_run(loaded, loaded.recipe)

    recipe = write(tmp_path)
    run_dir = begin()
    assert set_failed_run_aside(run_dir) is None  # another process may be about to train it
    (run_dir / "events.jsonl").write_text('{"event": "failed"}\n')
    with run_lock(run_dir):
        assert set_failed_run_aside(run_dir) is None
    assert set_failed_run_aside(run_dir) == run_dir.with_name("one.failed-1")
    assert (tmp_path / "runs" / "one.failed-1" / "events.jsonl").is_file()
    assert set_failed_run_aside(run_dir) is None

    begin()
    (run_dir / "events.jsonl").touch()
    (run_dir / "slurm.json").touch()
    assert set_failed_run_aside(run_dir) is None
    assert set_failed_run_aside(run_dir, jobs_are_over=True) == run_dir.with_name("one.failed-2")

    begin()
    (run_dir / "events.jsonl").touch()
    (run_dir / "checkpoints" / "step-00000004").mkdir(parents=True)
    assert set_failed_run_aside(run_dir) is None  # whatever is in it: `pokevla resume` decides
