"""Twins of LLaVA-Instruct-665K and RoboPoint: lists of conversations, one JSON list each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.twin.plan import (
    Fault,
    Writer,
    absent_image,
    answered,
    control_token,
    looping_text,
    no_question,
    roles_exchanged,
    second_image_token,
    talk,
    tuples,
)
from benchmarks.twin.questions import (
    FORM_BOXES,
    FORM_POINTS,
    LETTER,
    POINT_AT,
    SHORT,
    choice,
    describe,
    free_space,
    short_question,
    yes_no,
)
from benchmarks.twin.scenes import Scene, Thing

LLAVA_PARTS = {
    "coco/train2017": 0.547, "vg/VG_100K": 0.130, "gqa/images": 0.108, "ocr_vqa/images": 0.120,
    "textvqa/train_images": 0.033, "": 0.062,
}  # fmt: skip
"""Share of the rows by image folder, as counted in haotian-liu/LLaVA, issue 657. No folder: text only."""
ROBOPOINT_PARTS = {"object_ref": 0.243, "region_ref": 0.223, "detection": 0.070, "llava": 0.464}
"""Of 1,432K rows: 347K, 320K, 100K, and 665K that repeat LLaVA-Instruct-665K."""
_TEXT_FAULTS: dict[str, Fault] = {
    "text_empty": no_question,
    "turn_order": roles_exchanged,
    "special_token": control_token,
    "text_loop": looping_text,
}
_LLAVA_FAULTS = {**_TEXT_FAULTS, "image_token_count": second_image_token, "image_missing": absent_image}
_POINT_FAULTS: dict[str, Fault] = {
    **_LLAVA_FAULTS,
    "answer_format": answered("It is not visible."),
    "coord_nan": answered("[(nan, 0.500)]"),
    "coord_range": answered("[(0.400, 1.400)]"),
    "coord_scale_mismatch": answered("[(212, 133), (220, 140)]"),
    "points_identical": answered("[(0.300, 0.400), (0.300, 0.400)]"),
    "text_too_long": answered(tuples([(0.1, 0.2)] * 80)),
}
_WORDS = ("sky", "stone", "river", "engine", "letter", "window", "garden", "bridge")


def write_llava(writer: Writer) -> None:
    """`llava_v1_5_mix665k.json`."""
    writer.write_list("llava_v1_5_mix665k.json", _llava_rows(writer))


def _llava_rows(writer: Writer) -> Iterator[dict[str, Any]]:
    for number in range(writer.settings.rows):
        rng = writer.rng(number)
        part = rng.choices(list(LLAVA_PARTS), list(LLAVA_PARTS.values()))[0]
        key = f"{number:07d}"
        if not part:
            word = rng.choice(_WORDS)
            turns = talk(f"Spell the word {word} backwards.", " ".join(reversed(word)), image=False)
            yield writer.add({"id": key, "model": "", "conversations": turns}, number, _TEXT_FAULTS)
            continue
        scene = writer.scene(number)
        image = f"{part}/{writer.picture_number(number):012d}.jpg"
        writer.save_scene(image, scene)
        row = {"id": key, "image": image, "conversations": _llava_talk(part, scene, rng)}
        yield writer.add(row, number, _LLAVA_FAULTS)


def _llava_talk(part: str, scene: Scene, rng: Any) -> list[dict[str, str]]:
    if part.startswith("vg/"):
        thing = rng.choice(scene.things)
        question = f"Please provide the bounding box coordinate of the region this sentence describes: {thing.name}."
        return talk(question, "[" + ", ".join(f"{number:.2f}" for number in padded_box(scene, thing)) + "]")
    kind = rng.randrange(4)
    if kind == 0 and part.startswith("coco"):
        question, options, right = choice(scene, rng)
        lines = "\n".join(f"{'ABCD'[place]}. {option}" for place, option in enumerate(options))
        return talk(f"{question}\n{lines}\n{LETTER}", "ABCD"[right])
    if kind == 1:
        return talk("Describe the picture.", describe(scene), *yes_no(scene, rng), *short_question(scene, rng))
    question, answer = short_question(scene, rng)
    return talk(f"{question}\n{SHORT}", answer)


def padded_box(scene: Scene, thing: Thing) -> tuple[float, float, float, float]:
    """A box as fractions of the picture padded to a centred square."""
    side = max(scene.size)
    left, top = (side - scene.width) / 2, (side - scene.height) / 2
    x1, y1, x2, y2 = thing.box
    return (x1 + left) / side, (y1 + top) / side, (x2 + left) / side, (y2 + top) / side


def write_robopoint(writer: Writer) -> None:
    """`robopoint_1432k.json`, its pictures below `images/`."""
    writer.write_list("robopoint_1432k.json", _robopoint_rows(writer))


def _robopoint_rows(writer: Writer) -> Iterator[dict[str, Any]]:
    for number in range(writer.settings.rows):
        rng = writer.rng(number)
        part = rng.choices(list(ROBOPOINT_PARTS), list(ROBOPOINT_PARTS.values()))[0]
        scene, picture = writer.scene(number), writer.picture_number(number)
        if part == "llava":
            turns = talk(f"{short_question(scene, rng)[0]}\n{SHORT}", "Yes")
            row = {"id": f"{number:07d}", "image": f"gqa/{picture:07d}.jpg", "conversations": turns}
            yield writer.pass_over(row, "other_set")
            continue
        faults = _POINT_FAULTS
        if part == "object_ref":
            thing = rng.choice(scene.things)
            question = f"{rng.choice(POINT_AT).format(thing.name)} {FORM_POINTS}"
            answer = tuples(scene.points_on(thing, rng, rng.randint(2, 6)))
        elif part == "region_ref":
            asked, points, _ = free_space(scene, rng, rng.randint(3, 8))
            question, answer = f"{asked} {FORM_POINTS}", tuples(points)
        else:
            faults = _LLAVA_FAULTS
            thing = rng.choice(scene.things)
            same = [each for each in scene.things if each.shape == thing.shape]
            boxes = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in map(scene.unit_box, same)]
            question, answer = f"Find all {thing.shape}s. {FORM_BOXES}", tuples(boxes)
        if part == "detection":
            key, image = f"{number:07d}", f"coco/train2017/{picture:012d}.jpg"
        else:
            key = f"{part}/{picture:06x}_cam{picture % 4:02d}_{number}"
            image = f"{part}/{picture:06x}_cam{picture % 4:02d}.png"
        writer.save_scene(f"images/{image}", scene)
        yield writer.add({"id": key, "image": image, "conversations": talk(question, answer)}, number, faults)
