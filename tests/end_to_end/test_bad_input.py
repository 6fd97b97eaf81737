"""Each mistake of a user ends with one clear line, its exit code, and nothing half-written under a final name."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.simulator


def _assert_one_line(result, exit_code: int, *words: str) -> None:
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert result.returncode == exit_code, result.stderr
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


def _recipe(folder: Path, base: Path, text: str) -> Path:
    path = folder / "bad.yaml"
    path.write_text(f"extends: [{base}]\n{text}\n")
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("optim: {lerning_rate: 1.0e-3}", ["bad.yaml:2", "lerning_rate", "lr"]),
        ("optim: {lr: fast}", ["bad.yaml:2", "optim.lr", "fast"]),
        ("batch: {global: 7, micro: 2}", ["batch", "7"]),
    ],
)
def test_wrong_recipe_is_refused_with_its_place(
    whole_way: Path, tmp_path: Path, recipes: Path, pokevla, text: str, words: list[str]
):
    path = _recipe(tmp_path, recipes / "posttrain.yaml", text)
    for verb in ("validate", "train"):
        _assert_one_line(pokevla(verb, path), 2, *words)


def test_cycle_in_extends_is_shown(tmp_path: Path, pokevla):
    (tmp_path / "a.yaml").write_text("extends: [b.yaml]\nkind: posttrain\n")
    (tmp_path / "b.yaml").write_text("extends: [a.yaml]\n")
    _assert_one_line(pokevla("validate", tmp_path / "a.yaml"), 2, "a.yaml", "b.yaml")


def test_missing_dataset_is_named(whole_way: Path, tmp_path: Path, recipes: Path, pokevla):
    missing = tmp_path / "nowhere"
    path = _recipe(
        tmp_path, recipes / "posttrain.yaml", f"data: {{datasets: [{{path: {missing}}}]}}\noutput: {tmp_path}"
    )
    _assert_one_line(pokevla("train", path), 3, str(missing))
    assert not (tmp_path / "posttrain").exists()


def test_missing_cache_names_the_command_that_builds_it(whole_way: Path, tmp_path: Path, recipes: Path, pokevla):
    path = _recipe(
        tmp_path, recipes / "posttrain.yaml", f"output: {tmp_path}\nname: x\ncache: {{root: {tmp_path / 'cache'}}}"
    )
    _assert_one_line(pokevla("train", path), 3, "pokevla cache build")


def test_cache_of_another_teacher_is_refused_with_the_part_that_differs(
    whole_way: Path, tmp_path: Path, recipes: Path, pokevla
):
    path = _recipe(tmp_path, recipes / "posttrain.yaml", f"output: {tmp_path}\nname: x\ncache: {{sam: {{seed: 5}}}}")
    _assert_one_line(pokevla("train", path), 3, "sam", "pokevla cache build")


def _damaged_copy(dataset: Path, out: Path, *, truncate: bool) -> Path:
    shutil.copytree(dataset, out)
    shard = sorted((out / "shards").glob("*.tar"))[0]
    content = bytearray(shard.read_bytes())
    if truncate:
        del content[len(content) // 3 :]
    else:
        for place in range(1024, len(content) - 1024, 1536):
            content[place] ^= 0xFF
    shard.write_bytes(content)
    return out


@pytest.mark.parametrize("truncate", [True, False], ids=["truncated", "corrupted"])
def test_damaged_shard_is_named(whole_way: Path, tmp_path: Path, recipes: Path, pokevla, truncate: bool):
    dataset = _damaged_copy(whole_way / "vlm", tmp_path / "vlm", truncate=truncate)
    _assert_one_line(pokevla("data", "verify", dataset), 3, ".tar")
    path = _recipe(
        tmp_path,
        recipes / "pretrain.yaml",
        f"output: {tmp_path}\nname: x\nepochs: 1.0\nsteps: null\ndata: {{datasets: [{{path: {dataset}}}]}}",
    )
    _assert_one_line(pokevla("train", path), 3, ".tar")


def test_hdf5_without_the_expected_keys_is_refused(tmp_path: Path, pokevla):
    source = tmp_path / "some_demo.hdf5"
    with h5py.File(source, "w") as file:
        file.create_group("data/demo_0")["actions"] = np.zeros((20, 7))
    result = pokevla("data", "convert", "libero", source, tmp_path / "out")
    _assert_one_line(result, 3, "some_demo.hdf5")
    assert not (tmp_path / "out").exists()


def test_evaluation_of_a_task_that_does_not_exist_is_refused_with_its_place(tmp_path: Path, recipes: Path, pokevla):
    path = _recipe(tmp_path, recipes / "evaluation.yaml", "trials: {tasks: [3, 10]}")
    for command in (["validate", "--schema-only"], ["eval"]):  # the runs that it names do not exist either
        _assert_one_line(pokevla(*command, path), 2, "bad.yaml:2", "libero_object has no task 10")


def test_evaluation_of_an_unfinished_run_is_refused_by_validate(tmp_path: Path, recipes: Path, pokevla):
    run = tmp_path / "run"
    run.mkdir()
    path = _recipe(tmp_path, recipes / "evaluation.yaml", f"policies: [{{name: a, kind: model, run: {run}}}]")
    _assert_one_line(pokevla("validate", path), 3, str(run), "no exported model")


@pytest.mark.parametrize(
    ("suite", "task", "word"), [("libero_object", "10", "10"), ("libero_objects", "3", "libero_object")]
)
def test_task_that_does_not_exist_is_named(tmp_path: Path, pokevla, suite: str, task: str, word: str):
    result = pokevla("data", "demos", "--suite", suite, "--task", task, "--episodes", "1", "--out", tmp_path / "raw")
    _assert_one_line(result, 2, word)
    assert not list(tmp_path.rglob("*.hdf5"))


def test_missing_gl_library_names_the_package(tmp_path: Path, pokevla):
    # A back-end that does not exist fails where a missing libosmesa6 does: when the GL library is loaded.
    task = ("--suite", "libero_object", "--task", "3", "--episodes", "1", "--out", tmp_path / "raw")
    result = pokevla("data", "demos", *task, MUJOCO_GL="nonsense")
    _assert_one_line(result, 2, "MUJOCO_GL", "apt-get install")
    assert not list(tmp_path.rglob("*.hdf5"))


def test_full_disk_ends_a_conversion_with_one_line_and_no_dataset(
    whole_way: Path, tmp_path: Path, repository: Path, command_environment: dict[str, str]
):
    out = tmp_path / "robot"
    # `ulimit -f` in KiB: a file that may not grow fails as one on a full disk does, and needs no root.
    limited = "ulimit -f 64 && exec " + shlex.join(
        [sys.executable, "-m", "pokevla.cli.main", "data", "convert", "libero", str(whole_way / "raw"), str(out)]
    )
    result = subprocess.run(
        ["bash", "-c", limited], cwd=repository, env=command_environment, capture_output=True, text=True, check=False
    )
    _assert_one_line(result, 3, "No room to write", str(out))
    assert list(tmp_path.iterdir()) == []


def test_port_in_use_is_refused(whole_way: Path, tmp_path: Path, recipes: Path, pokevla):
    path = _recipe(tmp_path, recipes / "pretrain.yaml", f"output: {tmp_path}\nname: x")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        _assert_one_line(pokevla("train", path, MASTER_PORT=port), 2, port)
