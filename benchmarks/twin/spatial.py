"""Twins of RefSpatial, both parts, and of what RoboSpatial's generator writes."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from benchmarks.twin.plan import Fault, Writer, answered, no_answer, second_image_token, split_rows, talk, tuples
from benchmarks.twin.questions import POINT_AT, choice, free_space, lettered, yes_no
from benchmarks.twin.scenes import Scene, relation

_POINT_FORM = "Answer with a list of tuples [(x, y)], normalized to 0 to 1."
LISTS = {
    "refspatial": {
        "2D/choice_qa.json": 0.40, "3D/choice_qa.json": 0.22, "3D/vacant_qa.json": 0.20,
        "3D/visual_choice_qa.json": 0.13, "3D/multi_view_qa.json": 0.05,
    },
    "refspatial-reasoning": {
        "2D/reasoning_template_qa.json": 0.5, "3D/reasoning_template_qa.json": 0.35, "Simulator/metadata.json": 0.15,
    },
}  # fmt: skip
"""Share of the rows of each list. Ours: of most lists the counts are not published."""
_FOLDERS = {"3D/visual_choice_qa.json": "3D/image_visual_choice", "3D/multi_view_qa.json": "3D/image_multi_view"}


def write_refspatial(writer: Writer) -> None:
    """The lists of one part, and their pictures. Depth pictures are named, as in the set, but not written: nothing
    reads them."""
    start = 0
    for name, count in split_rows(writer.settings.rows, LISTS[writer.source]).items():
        writer.write_list(name, _refspatial_rows(writer, name, start, count))
        start += count


def _refspatial_rows(writer: Writer, name: str, start: int, count: int) -> Iterator[dict[str, Any]]:
    folder = _FOLDERS.get(name, f"{name.split('/')[0]}/image")
    part = name.removesuffix(".json").replace("/", "_")
    for number in range(start, start + count):
        rng, scene = writer.rng(number), writer.scene(number, folder)
        image = f"{part}_{writer.picture_number(number):07d}.{'jpg' if name.startswith('2D') else 'png'}"
        writer.save_scene(f"{folder}/{image}", scene)
        row: dict[str, Any] = {"id": f"{part}_{number:07d}", "image": [image], "depth": [f"{image[:-4]}.png"]}
        if "multi_view" in name:
            yield _two_views(writer, row, number, folder, choice(scene, rng))
            continue
        exchanges, thoughts = _exchanges(name, scene, rng)
        row["conversations"] = talk(*(text for exchange in exchanges for text in exchange))
        if thoughts:
            row["thinking"] = [{"question_type": "point", "thinking": text} for text in thoughts]
        yield writer.add(row, number, _faults(name), len(exchanges))


def _two_views(
    writer: Writer, row: dict[str, Any], number: int, folder: str, asked: tuple[str, list[str], int]
) -> dict[str, Any]:
    """A row of two pictures, with a question about the first."""
    other = f"other_{row['image'][0]}"
    writer.save_scene(f"{folder}/{other}", writer.scene(number, f"{folder} other"))
    question, options, right = asked
    text = f"<image>\nIn the first picture: {question} {lettered(options)}"
    row |= {"image": [*row["image"], other], "depth": [*row["depth"], f"{other[:-4]}.png"]}
    row["conversations"] = talk(text, f"({'AB'[right]})")
    return writer.add(row, number, {"multi_image": _many_pictures, "image_token_count": second_image_token})


def _many_pictures(row: dict[str, Any]) -> None:
    row["image"] = row["image"] * 3


def _exchanges(name: str, scene: Scene, rng: random.Random) -> tuple[list[tuple[str, str]], list[str]]:
    """(question, answer) pairs of a row, and the thought before each."""
    if "choice" in name:
        return [_choice(scene, rng) for _ in range(rng.randint(1, 4))], []
    if "vacant" in name:
        asked, points, _ = free_space(scene, rng, rng.randint(1, 3))
        thing = rng.choice(scene.things)
        pointed = rng.choice(POINT_AT).format(thing.name)
        return [(f"{asked} {_POINT_FORM}", tuples(points)),
                (f"{pointed} {_POINT_FORM}", tuples(scene.points_on(thing, rng, 1)))], []  # fmt: skip
    if name.startswith("Simulator"):
        one, other = rng.sample(scene.things, 2)
        words = relation(other, one)
        question = f"Point at the {other.shape} {words} the {one.name}. {_POINT_FORM}"
        x, y = scene.unit(one.x, one.y)
        thought = f"The {one.name} is at ({x:.2f}, {y:.2f}). The {other.name} is {words} it, so the point lies there."
        return [(question, tuples(scene.points_on(other, rng, 1)))], [thought]
    exchanges = []
    for _ in range(rng.randint(1, 4)):
        one, other = rng.sample(scene.things, 2)
        if rng.random() < 0.5:
            text = f"The {one.name} is {relation(one, other)} the {other.name}."
            exchanges.append((f"Where is the {one.name} with respect to the {other.name}?", text))
        else:
            exchanges.append(yes_no(scene, rng))
    return exchanges, []


def _choice(scene: Scene, rng: random.Random) -> tuple[str, str]:
    question, options, right = choice(scene, rng)
    return f"{question} {lettered(options)}", f"({'AB'[right]}) {options[right]}"


def _faults(name: str) -> dict[str, Fault]:
    faults: dict[str, Fault] = {"text_empty": no_answer, "image_token_count": second_image_token}
    faults["text_too_long"] = answered("[" + ", ".join(["(0.100, 0.200)"] * 40) + "]")
    if "choice" in name:
        faults["choice_not_in_options"] = answered("(C) neither")
    if "vacant" in name:
        faults["coord_range"] = answered("[(0.200, 1.300)]")
        faults["points_identical"] = answered("[(0.200, 0.300), (0.200, 0.300)]")
    return faults


def write_robospatial(writer: Writer) -> None:
    """A list of questions, and one file of annotations for each picture, at most a tenth of the rows."""
    rows = writer.settings.rows
    boxes = max(1, min(writer.settings.pictures or rows, rows // 10))
    writer.write_list("qa/scans.json", _robospatial_questions(writer, rows - boxes))
    for number in range(rows - boxes, rows):
        row, image = _annotations(writer, number)
        path = writer.root / "annotations" / f"{image.removesuffix('.jpg')}.annotations.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row), encoding="utf-8")


def _robospatial_image(writer: Writer, number: int) -> tuple[str, Scene]:
    """The picture of a row: eight neighbouring pictures are of one room."""
    picture = writer.picture_number(number)
    image, scene = f"scan_{picture // 64:04d}/room_{picture // 8 % 8}/{picture:06d}.jpg", writer.scene(number)
    writer.save_scene(f"images/{image}", scene)
    return image, scene


def _robospatial_questions(writer: Writer, count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        rng = writer.rng(number)
        image, scene = _robospatial_image(writer, number)
        row: dict[str, Any] = {"image_path": image}
        kind = number % 3
        if kind == 0:
            question, points, _ = free_space(scene, rng, rng.randint(3, 5))
            row |= {"qa_type": "unary_spatial_context", "question": f"In view of the camera: {question}",
                    "answer": tuples(points)}  # fmt: skip
        elif kind == 1:
            question, answer = yes_no(scene, rng)
            row |= {"qa_type": "pairwise_positional", "question": question, "answer": answer}
        else:
            one, other = rng.sample(scene.things, 2)
            answer = "Yes" if one.half <= other.half else "No"
            row |= {"qa_type": "pairwise_compatibility", "question": f"Would the {one.name} fit on the {other.name}?",
                    "answer": answer}  # fmt: skip
        yield writer.add(row, number, _POINT_QUESTION if kind == 0 else _YES_NO_QUESTION)


def _set(name: str, value: Any) -> Fault:
    def damage(row: dict[str, Any]) -> None:
        row[name] = value

    return damage


_ANY_QUESTION = {"image_missing": _set("image_path", "scan_x/none.jpg"), "text_empty": _set("answer", "")}
_POINT_QUESTION = {
    **_ANY_QUESTION,
    "coord_range": _set("answer", "[(0.300, 1.400)]"),
    "answer_format": _set("answer", "(0.3; 0.4)"),
}
_YES_NO_QUESTION = {**_ANY_QUESTION, "choice_not_in_options": _set("answer", "maybe")}


def _annotations(writer: Writer, number: int) -> tuple[dict[str, Any], str]:
    image, scene = _robospatial_image(writer, number)
    objects: list[dict[str, Any]] = [
        {"name": thing.name.replace(" ", "_"), "category": thing.shape, "bbox": list(thing.box), "bbox_3d": []}
        for thing in scene.things
    ]
    row = {"image_path": image, "object_grounding": objects, "spatial_relationships": {}}

    def inverted(row: dict[str, Any]) -> None:
        box = row["object_grounding"][0]["bbox"]
        box[0], box[2] = box[2], box[0]

    def outside(row: dict[str, Any]) -> None:
        row["object_grounding"][0]["bbox"][2] += scene.width

    return writer.add(row, number, {"box_inverted": inverted, "coord_range": outside}, len(objects)), image
