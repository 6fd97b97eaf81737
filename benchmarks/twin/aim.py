"""What a model points at if it does not point at the named thing: a score alone does not tell whether it looks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.twin.recipes import asked_for


def aim_of(answers: Path, seed: int) -> dict[str, float]:
    """Shares of the questions of `write_where2place` with this seed, by the first point of each reply.

    `on_a_thing`: it lies in the box of any thing. `named_nearest`: of all centres, that of the named thing is nearest.
    `by_chance`: `named_nearest` of a model that points at a thing of the picture, no matter which.

    Args:
        answers: `answers.jsonl` of `pokevla eval where2place`.
    """
    on_a_thing, named, by_chance = [], [], []
    for line in answers.read_text(encoding="utf-8").splitlines():
        answer = json.loads(line)
        scene, thing, _ = asked_for(seed, int(answer["id"]))
        by_chance.append(1 / len(scene.things))
        if not answer["points"]:
            on_a_thing.append(False)
            named.append(False)
            continue
        x, y = answer["points"][0][0] * scene.width, answer["points"][0][1] * scene.height
        boxes = np.array([each.box for each in scene.things])
        inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
        distances = [np.hypot(each.x - x, each.y - y) for each in scene.things]
        on_a_thing.append(bool(inside.any()))
        named.append(scene.things[int(np.argmin(distances))] == thing)
    return {
        "on_a_thing": float(np.mean(on_a_thing)),
        "named_nearest": float(np.mean(named)),
        "by_chance": float(np.mean(by_chance)),
    }
