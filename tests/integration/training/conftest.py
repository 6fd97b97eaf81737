"""A tiny robot dataset and its feature cache, made once a session by the writers of the data and teachers rooms."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pokevla.data.sources.libero import EPISODE_SCHEMA, SAMPLE_SCHEMA, encode_jpeg, encode_mask
from pokevla.data.sources.libero_vlm import SAMPLE_SCHEMA as QUESTION_SCHEMA
from pokevla.data.statistics import compute_statistics
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.recipe.load import load_recipe

SIDE = 32  # px
LENGTH = 16  # frames of an episode


def write_toy_dataset(out: Path, episodes: int = 6) -> Path:
    """Episodes of a coloured square that the arm follows; the last two are of split `val`."""
    rng = np.random.default_rng(0)
    all_actions, all_proprio = [], []
    with DatasetWriter(
        out, kind="robot", group="toy", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, shard_samples=16
    ) as writer:
        for episode in range(episodes):
            shared = {
                "episode": episode,
                "split": "val" if episode >= episodes - 2 else "train",
                "suite": "toy",
                "task": "follow",
                "task_index": 0,
                "instruction": "Follow the square",
            }
            actions = rng.uniform(-1, 1, (LENGTH, 7))
            actions[:, 6] = np.where(np.arange(LENGTH) < 8, -1.0, 1.0)
            proprio = rng.uniform(-1, 1, (LENGTH, 8)).astype(np.float32)
            all_actions.append(actions)
            all_proprio.append(proprio)
            for frame in range(LENGTH):
                x, y = rng.integers(0, SIDE - 10, 2)
                image, mask = np.full((SIDE, SIDE, 3), 90, np.uint8), np.zeros((SIDE, SIDE), bool)
                image[y : y + 10, x : x + 10] = (200, 40, 40)
                mask[y : y + 10, x : x + 10] = frame % 5 > 0  # sometimes nothing is visible
                key = f"toy-t00-e{episode:04d}-f{frame:04d}"
                row = {**shared, "frame": frame, "proprio": proprio[frame].tolist()}
                members = {f"{view}.jpg": encode_jpeg(image, 95) for view in ("base", "wrist")}
                members |= {f"{view}.mask.png": encode_mask(mask) for view in ("base", "wrist")}
                members["json"] = encode_json({"key": key, **row})
                writer.add_sample(key, members, row)
            writer.add_episode(
                {
                    **shared,
                    "length": LENGTH,
                    "init_state_index": episode,
                    "target_shift": None,
                    "actions": actions.tolist(),
                    "executed_actions": actions.tolist(),
                    "proprio": proprio.tolist(),
                }
            )
        return writer.finish(
            {"statistics": compute_statistics(all_actions, all_proprio).to_dict(), "sources": [], "made_by": {}}
        )


def write_toy_questions(out: Path, count: int = 40) -> Path:
    """Where is the square? The last eight pictures are of split `val`."""
    rng = np.random.default_rng(1)
    with DatasetWriter(out, kind="vlm", group="toy", samples=QUESTION_SCHEMA, shard_samples=16) as writer:
        for number in range(count):
            x, y = rng.integers(0, SIDE - 10, 2)
            image, mask = np.full((SIDE, SIDE, 3), 90, np.uint8), np.zeros((SIDE, SIDE), bool)
            image[y : y + 10, x : x + 10], mask[y : y + 10, x : x + 10] = (200, 40, 40), True
            point = ((x + 5) / SIDE, (y + 5) / SIDE)
            key = f"toy-{number:04d}"
            row = {
                "split": "val" if number >= count - 8 else "train",
                "source": "toy",
                "category": "grounding",
                "task": "follow",
                "answer_kind": "point",
                "question": "Where is the square?" if number % 2 else "Point at the red square in this picture.",
                "answer": f"[({point[0]:.3f}, {point[1]:.3f})]",
                "target_points": [list(point)],
                "target_boxes": [],
                "choice": None,
                "width": SIDE,
                "height": SIDE,
            }
            members = {"jpg": encode_jpeg(image, 95), "mask.png": encode_mask(mask)}
            writer.add_sample(key, {**members, "json": encode_json({"key": key, **row})}, row)
        return writer.finish({"statistics": None, "sources": [], "made_by": {}})


PRETRAIN_RECIPE = """\
kind: pretrain
name: {name}
output: {output}
data: {{datasets: [{{path: {dataset}}}], shuffle_window: 2}}
model: {{preset: tiny}}
trainable: {{vision: full, projector: full, language_model: full}}
optim: {{lr: 3.0e-3}}
batch: {{global: 8, micro: 2}}
epochs: 2
precision: bf16
zero: {{stage: 1}}
checkpoint: {{every_steps: 4}}
log: {{every_steps: 4, grad_norms_every_steps: 4}}
resources: {{cpu_ranks: 2, threads_per_rank: 1}}
"""

RECIPE = """\
kind: posttrain
name: {name}
output: {output}
seed: 7
data:
  datasets: [{{path: {dataset}}}]
  chunk_length: 8
  shuffle_window: 2
  augment: {{crop_area: 0.9}}
cache:
  root: {cache}
  sam: {{preset: tiny}}
  vggt: {{preset: tiny}}
model: {{preset: tiny}}
trainable: {{vision: lora, projector: full, language_model: lora}}
lora: {{rank: 4, alpha: 8, dropout: 0.1}}
optim: {{lr: 1.0e-3, warmup_fraction: 0.25}}
batch: {{global: 8, micro: 2}}
steps: 12
precision: fp32
zero: {{stage: 2}}
checkpoint: {{every_steps: 4, keep_last: 2, healthy_after_steps: 2}}
log: {{every_steps: 3, grad_norms_every_steps: 4}}
resources: {{cpu_ranks: 2, threads_per_rank: 1}}
"""


@pytest.fixture(scope="session")
def toy_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy robot dataset."""
    return write_toy_dataset(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="session")
def write_recipe(toy_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write the toy post-training recipe under a name; its cache is built at the first call."""
    from pokevla.teachers.build import build_cache

    root = tmp_path_factory.mktemp("recipes")
    cache = tmp_path_factory.mktemp("cache")

    def write(name: str, output: Path) -> Path:
        path = root / f"{name}.yaml"
        path.write_text(RECIPE.format(name=name, output=output, dataset=toy_dataset, cache=cache))
        return path

    probe = load_recipe(write("probe", root)).recipe
    build_cache(toy_dataset, probe.cache, batch=8)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return write


@pytest.fixture(scope="session")
def whole_run(repository: Path, write_recipe: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of an uninterrupted run of the toy post-training recipe."""
    runs = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [sys.executable, "-m", "pokevla.cli.main", "train", str(write_recipe("whole", runs))],
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "step 1  loss" in done.stderr
    return runs / "whole"


@pytest.fixture
def pokevla(tiny_run_env: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line as a user does."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pokevla.cli.main", *map(str, arguments)],
            env={**tiny_run_env, "POKEVLA_TEST": os.environ.get("PYTEST_CURRENT_TEST", "")},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def pretrain_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write the toy pre-training recipe under a name."""
    root = tmp_path_factory.mktemp("pretraining")
    dataset = write_toy_questions(root / "toy")

    def write(name: str, output: Path) -> Path:
        path = root / f"{name}.yaml"
        path.write_text(PRETRAIN_RECIPE.format(name=name, output=output, dataset=dataset))
        return path

    return write
