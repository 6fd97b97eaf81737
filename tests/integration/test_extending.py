"""Every kind of part can be added from outside the package: one module of at most 50 lines, named in `extensions`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pokevla.telemetry.jsonl import read_jsonl

PARTS = Path(__file__).parent / "toy_parts"
MODULES = sorted(path.stem for path in PARTS.glob("toy_*.py"))
MAX_LINES = 50

RECIPE = """\
kind: posttrain
name: toy
output: {folder}/runs
extensions: {extensions}
data: {{datasets: [{{path: {folder}/data}}], chunk_length: 4, augment: {{crop_area: 0.9}}}}
cache: {{root: {folder}/cache, sam: {{preset: tiny}}, vggt: null, teachers: [{{kind: toy, preset: only, codec: fp16}}]}}
model: {{preset: tiny, head: mean, language_model: llama, geometry_width: 6}}
loss: {{geometry_features: toy}}
trainable: {{vision: frozen, projector: full, language_model: lora}}
lora: {{rank: 4, alpha: 8, dropout: 0.0}}
optim: {{name: nadam, lr: 1.0e-3}}
batch: {{global: 8, micro: 4}}
steps: 4
precision: fp32
zero: {{stage: 2}}
checkpoint: {{every_steps: 2}}
log: {{every_steps: 1, grad_norms_every_steps: 0, sinks: [jsonl, losses]}}
resources: {{cpu_ranks: 2, threads_per_rank: 1}}
"""
EVALUATION = """\
kind: eval
name: judged
output: {folder}/runs
extensions: {extensions}
trials: {{environment: point, suite: centre, tasks: [0], init_states: [0, 2], max_steps: 8}}
policies: [{{name: toy, kind: model, run: {folder}/runs/toy}}]
image_size: 32
actions_per_query: 4
workers: 1
videos: 1
"""


@pytest.mark.parametrize("module", MODULES)
def test_a_part_takes_one_short_module(module: str) -> None:
    assert len((PARTS / f"{module}.py").read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_parts_from_outside_train_are_cached_saved_exported_and_act(
    tmp_path: Path, tiny_run_env: dict[str, str]
) -> None:
    python_path = os.pathsep.join([tiny_run_env["PYTHONPATH"], str(PARTS)])
    environment = {**tiny_run_env, "PYTHONPATH": python_path, "POKEVLA_EXTENSIONS": ",".join(MODULES)}

    def pokevla(*arguments: object) -> str:
        command = [sys.executable, "-m", "pokevla.cli.main", *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for name, text in (("toy", RECIPE), ("judged", EVALUATION)):
        (tmp_path / f"{name}.yaml").write_text(text.format(folder=tmp_path, extensions=MODULES))
    run = tmp_path / "runs" / "toy"

    pokevla("data", "convert", "squares", tmp_path / "data")
    pokevla("cache", "build", tmp_path / "toy.yaml")
    pokevla("submit", tmp_path / "toy.yaml", "--launcher", "spawn")

    assert json.loads((run / "slurm.json").read_text())["jobs"][0]["job_id"].startswith("spawn-")
    weights = load_file(run / "export" / "model.safetensors")
    assert weights["action_head.mlp.2.weight"].shape[0] == 4 * 9, "chunk length times the toy robot's actions"
    lines = (run / "losses.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["1", "2", "3", "4", "end"]
    assert {row["step"] for row in read_jsonl(run / "metrics.jsonl") if row.get("loss/geometry")} == {1, 2, 3, 4}
    pokevla("ckpt", "verify", run)

    pokevla("eval", tmp_path / "judged.yaml")
    summary = json.loads((tmp_path / "runs" / "judged" / "summary.json").read_text())
    assert summary["policies"]["toy"]["trials"] == 2
    assert summary["policies"]["toy"]["crashed"] == 0
