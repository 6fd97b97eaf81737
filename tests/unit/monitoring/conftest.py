"""A small finished pipeline: the files its stages leave, written by the code that writes them where it is light."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pokevla.embodiment.libero import LIBERO
from pokevla.evaluation.drawing.recorder import Filming, TrialRecorder
from pokevla.evaluation.running.messages import Query
from pokevla.evaluation.running.watching import Ending
from pokevla.evaluation.trial_records import TrialRecord, rewrite_records, summarise
from pokevla.evaluation.vlm.grounding import Question, judge, summarise_verdicts
from pokevla.evaluation.vlm.point_pictures import points_picture
from tests.unit.evaluation.drawing.trials import TRIAL

RECORD = TrialRecord(
    policy="trained", suite="libero_object", task_index=3, task="pick", trial=0, init_state_index=30,
    target_shift=(0.03, -0.02), outcome="success", steps=120, queries=15, seconds=4.5, mask_iou=0.61,
)  # fmt: skip
SUCCESSES = {
    "trained": ("model", 12),
    "untrained": ("untrained", 0),
    "replay": ("replay", 4),
    "blanked": ("blanked", 3),
}
RECIPES = {
    "pretrain": "kind: pretrain\nname: pretrain\ndata: {datasets: [{path: d}]}\noptim: {lr: 1.0e-3}\n"
    "batch: {global: 32, micro: 16}\nsteps: 100\n",
    "posttrain": "kind: posttrain\nname: posttrain\ndata: {datasets: [{path: d}]}\noptim: {lr: 1.0e-3}\n"
    "batch: {global: 32, micro: 16}\nsteps: 100\ncache: {root: cache}\n",
}
SETTINGS = {
    "suite": "libero_object", "tasks": [3], "init_states": [30, 50], "target_shift_m": [0.0, 0.04], "max_steps": 200,
    "seed": 7, "image_size": 128, "fast_rendering": True, "actions_per_query": 8, "queries_per_s": 2.5,
    "mujoco": "3.3.2",
}  # fmt: skip


@pytest.fixture
def pipeline(finished_pipeline: Path, tmp_path: Path) -> Path:
    """A copy to change at will."""
    return Path(shutil.copytree(finished_pipeline, tmp_path / "pipeline"))


@pytest.fixture(scope="session")
def finished_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("demo")
    stages = [
        {
            "name": "demos",
            "command": "pokevla data demos",
            "fingerprint": "a",
            "seconds": 200.5,
            "peak_memory_gib": 3.5,
        },
        {
            "name": "posttrain",
            "command": "pokevla train x",
            "fingerprint": "b",
            "seconds": 400.0,
            "peak_memory_gib": 4.25,
        },
    ]
    (folder / "stages.json").write_text(json.dumps({"stages": stages}))
    for name in ("pretrain", "posttrain"):
        _run(folder / name, RECIPES[name])
    _evaluation(folder / "evaluation")
    _grounding(folder / "grounding")
    return folder


def _run(folder: Path, recipe: str) -> None:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "manifest.json").write_text(json.dumps({"commit": "0123456789abcdef"}))
    rows = [
        {
            "step": step, "position": 32 * step, "loss": 1.5 - 0.01 * step, "loss/action": 0.6 - 0.004 * step,
            "loss/segmentation": 0.5 - 0.003 * step, "lr": 1e-3 * (1 - step / 100), "grad_norm": 1 + 10 / step,
            "samples_per_s": 60.0, "data_wait_share": 0.02, "rss_gib": 1.2,
        }
        for step in range(10, 101, 10)
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _evaluation(folder: Path) -> None:
    records = [
        dataclasses.replace(
            RECORD, policy=name, init_state_index=30 + trial, outcome="success" if trial < successes else "failure",
            mask_iou=0.61 if kind == "model" else None,
        )
        for name, (kind, successes) in SUCCESSES.items()
        for trial in range(20)
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    true = np.zeros((2, 64, 64), np.uint8)
    true[:, 20:40, 24:44] = 1
    recorder = TrialRecorder(folder, TRIAL, Filming(LIBERO, 8, lambda *_: np.roll(true, 4, axis=1).astype(bool)))
    for step in range(4):
        images = np.full((2, 64, 64, 3), 90, np.uint8) + rng.integers(0, 40, (2, 64, 64, 3), dtype=np.uint8)
        recorder.see(Query(8 * step, "pick", np.zeros(8, np.float32), images, true), np.zeros((8, 7)))
    recorder.finish(Ending("success", 120))
    tasks = [
        {"suite": "libero_object", "index": 3, "name": "pick", "instruction": "pick up the <bbq> sauce", "policies": {}}
    ]
    settings = {**SETTINGS, "policies": {name: kind for name, (kind, _) in SUCCESSES.items()}}
    content = {"policies": summarise(records), "tasks": tasks, "settings": settings}
    (folder / "summary.json").write_text(json.dumps(content))
    rewrite_records(folder / "episodes.jsonl", records)


def _grounding(folder: Path) -> None:
    (folder / "pictures").mkdir(parents=True)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 24:44] = True
    image = Image.new("RGB", (64, 64), (90, 100, 110))
    questions = [
        Question(f"k{i}", "grounding", "point", "Point at the bbq sauce.", "[(0.5, 0.5)]", image, mask)
        for i in range(12)
    ]
    answers = {"before": ["?"] * 12, "after": ["[(0.500, 0.450)]"] * 9 + ["[(0.100, 0.100)]"] * 3}
    summary = {}
    for name, texts in answers.items():
        verdicts = [judge(question, text) for question, text in zip(questions, texts, strict=True)]
        summary[name] = summarise_verdicts(verdicts)
        points_picture(folder / "pictures" / f"{name}.png", questions, verdicts, 12)
    (folder / "summary.json").write_text(json.dumps(summary))
