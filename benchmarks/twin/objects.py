"""Twins of RoboRefIt (the zip) and HOVA-500K (both parts): places on objects, with masks and heat maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from benchmarks.twin.plan import Fault, Writer
from benchmarks.twin.questions import referring
from benchmarks.twin.scenes import Scene, draw_mask, draw_scene, heat_map, random_of

TRAIN = "final_dataset/train"
_REQUESTS = ("please hand me the {}", "the {}", "pick up the {}", "I need the {}")


def write_roborefit(writer: Writer) -> None:
    """The training split as in the zip of VL-Grasp. Depth pictures are named but not written: nothing reads them."""
    writer.write_list(f"{TRAIN}/roborefit_train.json", _roborefit_rows(writer))


def _roborefit_rows(writer: Writer) -> Iterator[dict[str, Any]]:
    for number in range(writer.settings.rows):
        # Few things, so that a small model soon learns what a place is: after 48,000 samples 72 of 100 points lay on a
        # thing, with up to five 66 after 72,000. Neither had learnt which of them is meant (docs/data.md).
        rng, scene = writer.rng(number), writer.scene(number, fewest=1, most=2)
        place = rng.randrange(len(scene.things))
        thing, picture = scene.things[place], f"{writer.picture_number(number):07d}"
        writer.save_scene(f"{TRAIN}/image/{picture}.png", scene)
        mask = f"{TRAIN}/mask/{picture}/{place}.png"
        writer.save(mask, lambda scene=scene, thing=thing: draw_mask(scene, thing))
        row = {
            "num": number,
            "text": rng.choice(_REQUESTS).format(referring(scene, thing, rng)),
            "bbox": list(thing.box),
            "rgb_path": f"{TRAIN}/image/{picture}.png".replace("/", "\\"),
            "depth_path": f"{TRAIN}/depth/{picture}.png".replace("/", "\\"),
            "mask_path": mask.replace("/", "\\"),
            "scene": "table",
        }
        yield writer.add(row, number, _REFIT_FAULTS, 2)


def _inverted_box(row: dict[str, Any]) -> int:
    x1, y1, x2, y2 = row["bbox"]
    row["bbox"] = [x2, y1, x1, y2]
    return 2


def _other_box(row: dict[str, Any]) -> int:
    x1, y1, x2, y2 = row["bbox"]
    row["bbox"] = [x1, y1, x1 + (x2 - x1) // 3, y1 + (y2 - y1) // 2]
    return 2


def _absent_mask(row: dict[str, Any]) -> int:
    row["mask_path"] += "_absent.png"
    return 2


_REFIT_FAULTS: dict[str, Fault] = {
    "box_inverted": _inverted_box,
    "mask_box_iou": _other_box,
    "mask_missing": _absent_mask,
}
"""Each costs both records of a row."""


@dataclass(frozen=True)
class Tool:
    """An object with a body and a part by which it is held. Offsets and sizes in halves of its width."""

    noun: str
    """As in EPIC-KITCHENS."""
    colour: tuple[int, int, int]
    body: tuple[float, float, float, float]
    handle: tuple[float, float, float, float]


TOOLS = (
    Tool("mug", (190, 70, 60), (-0.7, -0.7, 0.4, 0.7), (0.4, -0.35, 0.8, 0.35)),
    Tool("pan", (60, 60, 70), (-1.0, -0.6, 0.2, 0.6), (0.2, -0.12, 1.0, 0.12)),
    Tool("knife", (200, 205, 215), (-1.0, -0.15, 0.3, 0.15), (0.3, -0.2, 1.0, 0.2)),
    Tool("drawer", (170, 120, 70), (-1.0, -0.6, 1.0, 0.6), (-0.25, -0.12, 0.25, 0.12)),
    Tool("bottle", (50, 130, 80), (-0.35, -0.4, 0.35, 1.0), (-0.2, -1.0, 0.2, -0.4)),
    Tool("board:chopping", (220, 190, 130), (-0.6, -0.6, 1.0, 0.6), (-1.0, -0.2, -0.6, 0.2)),
)
HELD, TOUCHED = ("take", "open", "move", "put"), ("wash", "wipe", "press")
"""Verbs whose contact is the handle, and verbs whose contact is the body."""
_HANDLE = (30, 30, 160)


def draw_tool(image: Image.Image, tool: Tool, x: float, y: float, half: float) -> None:
    """Body and handle around a centre."""
    draw = ImageDraw.Draw(image)
    for part, fill in ((tool.body, tool.colour), (tool.handle, _HANDLE)):
        corners = [place + half * offset for place, offset in zip((x, y, x, y), part, strict=True)]
        draw.rectangle(corners, fill=fill, outline=(20, 20, 20))


def contact(tool: Tool, verb: str, x: float, y: float, half: float) -> tuple[float, float]:
    """Where a hand touches the tool: the middle of its handle, or a place of its body beside the handle."""
    x1, y1, x2, y2 = tool.handle if verb in HELD else tool.body
    if verb in TOUCHED and tool.noun == "drawer":  # its knob is in the middle of the body
        x1, x2 = -1.0, -0.3
    return x + half * (x1 + x2) / 2, y + half * (y1 + y2) / 2


def write_hova(writer: Writer) -> None:
    """`annotations/train/ego4d.json` or `epic100.json`, with frames and heat maps."""
    part = writer.source.removeprefix("hova-")
    writer.write_list(f"annotations/train/{part}.json", _hova_rows(writer, part))


def _hova_rows(writer: Writer, part: str) -> Iterator[dict[str, Any]]:
    is_ego4d = part == "ego4d"
    for number in range(writer.settings.rows):
        picture = writer.picture_number(number)
        drawn = random_of(writer.settings.seed, writer.source, "tool", picture)
        tool, scene = drawn.choice(TOOLS), writer.scene(number)
        half = drawn.uniform(0.16, 0.24) * min(scene.size)
        x, y = drawn.uniform(0.3, 0.7) * scene.width, drawn.uniform(0.3, 0.7) * scene.height
        verb = writer.rng(number).choice(HELD + TOUCHED)
        point = contact(tool, verb, x, y, half)

        def draw(scene: Scene = scene, tool: Tool = tool, x: float = x, y: float = y, half: float = half) -> Any:
            plain = Scene(scene.width, scene.height, (), scene.ground)
            image = draw_scene(plain, photo=writer.settings.photos)
            draw_tool(image, tool, x, y, half)
            return image

        clip = f"{picture // 16:05d}"
        touch = "held" if verb in HELD else "touched"
        name = f"clip_{clip}/{picture:06d}" if is_ego4d else f"P01/P01_{clip}/frame_{picture:010d}.jpg"
        frame = f"Ego4D/frames/{name}.jpg" if is_ego4d else f"epic-100/EPIC-KITCHENS_frames/{name}"
        writer.save(frame, draw)
        heat = f"clip_{clip}/{picture:06d}_{touch}.png" if is_ego4d else f"P01_{clip}_{picture}_{touch}.png"
        folder = "Ego4D" if is_ego4d else "epic-100"
        writer.save(f"{folder}/GT_gaussian/{heat}", lambda size=scene.size, point=point: heat_map(size, point))
        row: dict[str, Any] = {"img_path": name, "points": [[round(place) for place in point]], "gt_path": heat}
        if is_ego4d:
            noun = f"{tool.noun.split(':')[0]}_({tool.noun.split(':')[0]},_kitchen_{tool.noun.split(':')[0]})"
            row |= {"frame_number": picture, "width": scene.width, "height": scene.height, "action": verb, "noun": noun}
        else:
            row |= {"narration_id": f"P01_{clip}_{picture}", "verb": verb, "noun": tool.noun}
        yield writer.add(row, number, _hova_faults(is_ego4d, scene))


def _hova_faults(is_ego4d: bool, scene: Scene) -> dict[str, Fault]:
    def outside(row: dict[str, Any]) -> None:
        row["points"] = [[scene.width + 40, 20]]

    def far(row: dict[str, Any]) -> None:
        x, y = row["points"][0]
        row["points"] = [[(x + scene.width // 2) % scene.width, y]]

    def look(row: dict[str, Any]) -> None:
        row["action" if is_ego4d else "verb"] = "look"

    def person(row: dict[str, Any]) -> None:
        row["noun"] = "hand"

    def nameless(row: dict[str, Any]) -> None:
        row["noun"] = ""

    faults: dict[str, Fault] = {"coord_range": outside, "point_off_mask": far, "verb_no_contact": look}
    faults |= {"noun_person": person, "text_empty": nameless}
    if is_ego4d:

        def another_size(row: dict[str, Any]) -> None:
            row["width"] += 8

        faults["size_mismatch"] = another_size
    return faults
