"""Twins of MolmoAct's traces (parquet) and of Cosmos-Reason1's agibot part (clips)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.recorded.episodes import write_video
from benchmarks.twin.plan import Fault, Writer, encoded, split_rows
from benchmarks.twin.questions import short_question
from benchmarks.twin.scenes import Scene, Thing, draw_gripper, draw_scene, random_of, relation

FILE_ROWS, GROUP_ROWS = 20_000, 1_000
"""Rows of a parquet file, and of its row groups."""
_TRACE_SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("annotation", pa.string()),
        ("conversations", pa.struct([("from", pa.list_(pa.string())), ("value", pa.list_(pa.string()))])),
    ]
)
_TASKS = ("push the {}", "pick up the {}", "move to the {}", "touch the {}")
CLIP_FRAMES = 24


def write_molmoact(writer: Writer) -> None:
    """Parquet files as the config `auxiliary_trace` has them."""
    rows = _traces(writer)
    for number in range(-(-writer.settings.rows // FILE_ROWS)):
        path = writer.root / f"auxiliary_trace/train-{number:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, _TRACE_SCHEMA) as file:
            for _ in range(FILE_ROWS // GROUP_ROWS):
                if group := list(islice(rows, GROUP_ROWS)):
                    file.write_table(pa.Table.from_pylist(group, _TRACE_SCHEMA))


def _traces(writer: Writer) -> Iterator[dict[str, Any]]:
    pool: dict[int, bytes] = {}  # at most `pictures`
    for number in range(writer.settings.rows):
        scene, picture = writer.scene(number), writer.picture_number(number)
        start = gripper_start(scene, random_of(writer.settings.seed, writer.source, "gripper", picture))
        content = pool.get(picture)
        if content is None:
            content = _picture(writer, scene, start)
            if writer.settings.pictures:
                pool[picture] = content
        rng = writer.rng(number)
        thing = rng.choice([each for each in scene.things if _distance(scene, start, each) > 0.15] or scene.things)
        trace = [list(point) for point in path_to(scene, start, thing, rng.randint(4, 5))]
        task = rng.choice(_TASKS).format(thing.name)
        question = f"The task is {task}. Which path should the gripper follow?"
        row = {
            "image": {"bytes": content, "path": None},
            "annotation": str(trace),
            "conversations": {"from": ["human", "gpt"], "value": [question, str(trace)]},
        }
        yield writer.add(row, number, _TRACE_FAULTS)


def _picture(writer: Writer, scene: Scene, start: tuple[float, float]) -> bytes:
    image = draw_scene(scene, photo=writer.settings.photos)
    draw_gripper(image, *start)
    return encoded(image, ".jpg")


def gripper_start(scene: Scene, rng: random.Random) -> tuple[float, float]:
    """A place of the gripper that is not that of a thing, if one is found."""
    for _ in range(20):
        x, y = rng.uniform(0.1, 0.9) * scene.width, rng.uniform(0.1, 0.9) * scene.height
        if all(_distance(scene, (x, y), thing) > 0.15 for thing in scene.things):
            break
    return x, y


def _distance(scene: Scene, start: tuple[float, float], thing: Thing) -> float:
    """As a share of the diagonal."""
    return float(np.hypot(start[0] - thing.x, start[1] - thing.y) / np.hypot(*scene.size))


def path_to(scene: Scene, start: tuple[float, float], thing: Thing, count: int) -> list[tuple[int, int]]:
    """A bow from the gripper to a thing, in 0 to 255 of the picture."""
    along = np.linspace(0, 1, count)
    rise = 0.12 * abs(thing.x - start[0]) / scene.width * np.sin(np.pi * along)
    x = start[0] + along * (thing.x - start[0])
    y = start[1] + along * (thing.y - start[1])
    xs, ys = 255 * x / scene.width, 255 * (y / scene.height - rise)
    return [(round(float(np.clip(a, 0, 255))), round(float(np.clip(b, 0, 255)))) for a, b in zip(xs, ys, strict=True)]


def _traced(text: str | None) -> Fault:
    def damage(row: dict[str, Any]) -> None:
        row["annotation"] = text
        row["conversations"]["value"][1] = str(text)

    return damage


def _other_answer(row: dict[str, Any]) -> None:
    row["conversations"]["value"][1] = "[[1, 1], [20, 20]]"


def _cut_picture(row: dict[str, Any]) -> None:
    row["image"] = {"bytes": row["image"]["bytes"][:200], "path": None}


_TRACE_FAULTS: dict[str, Fault] = {
    "trace_missing": _traced(None),
    "trace_short": _traced("[[9, 9], [9, 9]]"),
    "trace_jump": _traced("[[5, 9], [200, 9], [210, 9], [220, 20]]"),
    "trace_mismatch": _other_answer,
    "coord_scale_mismatch": _traced("[[300, 9], [310, 40]]"),
    "coord_range": _traced("[[-5, 9], [40, 40]]"),
    "points_too_many": _traced(str([[20 * n, 9] for n in range(6)])),
    "image_corrupt": _cut_picture,
}


def write_cosmos(writer: Writer) -> None:
    """The two lists of turns, a list of multiple choice, and the clips."""
    shares = {"understanding": 0.5, "reasoning": 0.4, "qa_pairs": 0.1}
    start = 0
    for part, count in split_rows(writer.settings.rows, shares).items():
        name = "agibot_qa_pairs.json" if part == "qa_pairs" else f"agibot_{part}_sft.json"
        writer.write_list(name, _clip_rows(writer, part, start, count))
        start += count


def _clip_rows(writer: Writer, part: str, first: int, count: int) -> Iterator[dict[str, Any]]:
    for number in range(first, first + count):
        scene, picture = writer.scene(number), writer.picture_number(number)
        drawn = random_of(writer.settings.seed, writer.source, "clip", picture)
        start, thing = gripper_start(scene, drawn), drawn.choice(scene.things)
        begin = picture % 50 * 120
        episode = f"{300 + picture // 50 % 90}-{640000 + picture // 50}"
        video = f"agibot/clips/{episode}-head_color-{begin:04d}-{begin + 120:04d}.mp4"
        if writer.first_use(video):
            write_video(writer.root / video, [_frame(writer, scene, start, thing, n) for n in range(CLIP_FRAMES)], 15)
        rng = writer.rng(number)
        row: dict[str, Any] = {"video": video}
        if part == "qa_pairs":
            options = [each.name for each in rng.sample(scene.things, 3)]
            if thing.name not in options:
                options[rng.randrange(3)] = thing.name
            letters = dict(zip("ABC", options, strict=True))
            answer = next(letter for letter, name in letters.items() if name == thing.name)
            question = "Towards which shape should the gripper move next?"
            row["qa_pairs"] = {"question": question, "index2ans": letters, "answer": answer}
            yield writer.add(row, number, _PAIR_FAULTS)
            continue
        question, answer = _asked(part, scene, start, thing, rng)
        row["conversations"] = [
            {"role": "system", "content": "You help a robot."},
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
        yield writer.add(row, number, _CLIP_FAULTS if part == "reasoning" else _STILL_FAULTS)


def _frame(writer: Writer, scene: Scene, start: tuple[float, float], thing: Thing, number: int) -> np.ndarray:
    image = draw_scene(scene, photo=writer.settings.photos)
    along = number / (CLIP_FRAMES - 1)
    draw_gripper(image, start[0] + along * (thing.x - start[0]), start[1] + along * (thing.y - start[1]))
    return np.asarray(image)


def _asked(part: str, scene: Scene, start: tuple[float, float], thing: Thing, rng: random.Random) -> tuple[str, str]:
    if part == "understanding":
        return short_question(scene, rng)
    gripper = Thing("", "", int(start[0]), int(start[1]), 1, (0, 0))
    words = relation(thing, gripper)
    thought = f"The gripper is empty. The {thing.name} is {words} it."
    question = f"The task is to touch the {thing.name}. Where should the gripper go next?"
    return question, f"<think>{thought}</think><answer>Move {_towards(words)} to the {thing.name}.</answer>"


def _towards(words: str) -> str:
    return {"to the left of": "left", "to the right of": "right", "above": "up", "below": "down"}[words]


def _said(text: str) -> Fault:
    def damage(row: dict[str, Any]) -> None:
        row["conversations"][-1]["content"] = text

    return damage


def _roles(row: dict[str, Any]) -> None:
    row["conversations"] = row["conversations"][::-1]


def _no_clip(row: dict[str, Any]) -> None:
    row["video"] = "agibot/clips/absent.mp4"


def _no_option(row: dict[str, Any]) -> None:
    row["qa_pairs"]["answer"] = "F"


_CLIP_FAULTS: dict[str, Fault] = {
    "think_tags": _said("<think>It is empty.<answer>Move left.</answer>"),
    "text_empty": _said("<think>Hm.</think><answer> </answer>"),
    "turn_order": _roles,
    "video_missing": _no_clip,
}
_STILL_FAULTS: dict[str, Fault] = {**_CLIP_FAULTS, "motion_text": _said("It grasps, then lifts.")}
_PAIR_FAULTS: dict[str, Fault] = {"choice_not_in_options": _no_option, "video_missing": _no_clip}
