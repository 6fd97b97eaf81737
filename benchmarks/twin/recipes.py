"""The recipes that mix a twin and train on it, and questions about unseen pictures in Where2Place's layout."""

from __future__ import annotations

import json
import random
from pathlib import Path

from benchmarks.twin.make import SOURCES
from benchmarks.twin.questions import POINT_AT
from benchmarks.twin.scenes import Scene, Thing, draw_mask, draw_scene, make_scene, random_of

CATEGORIES = ("general", "grounding", "affordance", "reasoning")
LEFT_OUT_OF_TABLE = {
    "untrained": None, "full": None, **{f"without_{name}": name for name in ("grounding", "affordance", "reasoning")}
}  # fmt: skip
"""Rows of the paper's Table VII and a model that is not trained -> the category left out."""
ROWS = {"roborefit": 12}
"""Rows of a source for each row of the others: nothing else asks for the place of one named thing so often."""
BUDGETS = {"general": 2, "grounding": 24, "affordance": 2, "reasoning": 2}
"""Samples of a category for each row of most sources."""
QUESTIONS_NAME = "point_questions.jsonl"
"""Written last, so that it says that the folder is complete."""
QUESTIONS = 100
"""As many as Where2Place has."""
SIZE = (640, 480)
"""Where2Place's; its scorer takes every picture for one of this size."""
_SUFFIX = (
    " Your answer should be formatted as a list of tuples, i.e. [(x1, y1), (x2, y2), ...], where each tuple contains "
    "the x and y coordinates of a point satisfying the conditions above. The coordinates should be between 0 and 1, "
    "indicating the normalized pixel locations of the points in the image."
)


def mixture_recipe(build: Path, rows: int) -> str:
    """The recipe of the mixture `build/mixed/vlm` of all sources, `rows` rows of most. JSON is YAML."""
    caps = {"refspatial": "image", "robospatial": "group"}
    sources = [
        {"path": str(build / "sources" / name)}
        | ({"caps": [{"by": caps[name], "at_most": 4}]} if name in caps else {})
        | ({"whole": True} if name == "roborefit" else {})
        for name in SOURCES
    ]
    content = {
        "kind": "mixture",
        "name": "vlm",
        "output": str(build / "mixed"),
        "categories": {name: {"budget": share * rows} for name, share in BUDGETS.items()},
        "left_out": [str(build / "duplicates")],
        "sources": sources,
        "shard_samples": 256,
    }
    return json.dumps(content, indent=1)


def pretrain_recipe(work: Path, name: str, left_out: str | None, steps: int) -> str:
    """A pre-training at size mini on the mixture in `work/calm`, without one category. JSON is YAML."""
    datasets = [
        {"path": str(work / "calm/mixed/vlm" / category), "weight": BUDGETS[category]}
        for category in CATEGORIES
        if category != left_out
    ]
    content = {
        "extends": str(Path(__file__).resolve().parents[2] / "recipes/base/mini.yaml"),
        "kind": "pretrain",
        "name": name,
        "output": str(work / "runs"),
        "data": {
            "datasets": datasets,
            "train_split": "all",
            "max_text_tokens": 384,
            "sort_by_length": True,
            "augment": {"crop_area": 1.0, "brightness": 0, "contrast": 0, "saturation": 0, "hue": 0},
        },
        # If all parts train from random weights, they first learn the form of answers, and add one large vector to
        # all vision tokens: their deviation rose from 1 to 14, and the state that predicts the first digit depended on
        # the picture by 2 % of its deviation, at the start by 65 %. Random encoders show colours and places too.
        "trainable": {"vision": "frozen", "projector": "frozen"},
        "optim": {"lr": 1e-3, "warmup_fraction": 0.05, "betas": [0.9, 0.98]},
        "batch": {"global": 16, "micro": 8},
        "steps": steps,
        "checkpoint": {"every_steps": steps, "keep_last": 1},
        "log": {"every_steps": 10, "grad_norms_every_steps": 0},
    }
    return json.dumps(content, indent=1)


def asked_for(seed: int, number: int) -> tuple[Scene, Thing, random.Random]:
    """The scene and the named thing of a question of `write_where2place`, and random numbers for its words."""
    scene, rng = make_scene(seed, "where2place", number, SIZE), random_of(seed, "where2place", "question", number)
    return scene, rng.choice(scene.things), rng


def write_where2place(root: Path, seed: int) -> Path:
    """Questions about one thing each in pictures of another seed than the twin's, with the thing as the mask."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    lines = []
    for number in range(QUESTIONS):
        scene, thing, rng = asked_for(seed, number)
        draw_scene(scene).save(root / "images" / f"{number:02d}.jpg", quality=95)
        draw_mask(scene, thing).save(root / "masks" / f"{number:02d}.jpg", quality=100)
        text = f"<image>\n{rng.choice(POINT_AT).format(thing.name)}{_SUFFIX}"
        lines.append({"question_id": number, "image": f"{number:02d}.jpg", "text": text, "category": "seen"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (root / QUESTIONS_NAME).write_text(text, encoding="utf-8")
    return root
