"""The strip of an episode (time from left to right, one row per panel) and the frames of its video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pokevla.evaluation.drawing.lettering import FAINT, INK, PAPER, evenly, font, mask_legend, tag
from pokevla.evaluation.explaining.maps import MASK, Look, Panel, colours, draw_panel, drawn_panels, scale_of
from pokevla.evaluation.explaining.moments import Scene
from pokevla.policy.masks import paste
from pokevla.policy.pictures import mask_iou

STRIP_SIDE, CLIP_SIDE = 128, 176
"""Side of one view in pixels."""
GAP, VIEW_GAP, MARGIN = 12, 2, 12
LABEL_WIDTH, SCALE_WIDTH, HEADER = 150, 78, 78

Scales = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Story:
    """A scene and what its policy looked at."""

    scene: Scene
    looks: list[Look]
    policy: str

    def seconds(self, look: Look) -> float:
        """Time of a moment since the start of the episode, on the real robot."""
        return look.moment.step / self.scene.embodiment.control_rate_hz

    def scales(self) -> Scales:
        """Colour scales by panel."""
        return {p.name: scale_of(p, self.looks) for p in drawn_panels(self.looks) if p.name != MASK}


def draw_strip(story: Story, count: int) -> Image.Image:
    """At most `count` evenly spaced moments."""
    looks = [story.looks[index] for index in evenly(len(story.looks), count)]
    panels, scales, views = drawn_panels(looks), story.scales(), story.scene.embodiment.num_views
    cell = views * STRIP_SIDE + (views - 1) * VIEW_GAP
    width = LABEL_WIDTH + len(looks) * (cell + GAP) + SCALE_WIDTH
    height = HEADER + len(panels) * (STRIP_SIDE + GAP) + 22
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    _heading(draw, story, MARGIN)
    for column, look in enumerate(looks):
        left = LABEL_WIDTH + column * (cell + GAP)
        draw.text((left, HEADER - 20), f"{story.seconds(look):.1f} s", INK, font(13))
        draw.text((left + cell, HEADER - 18), f"step {look.moment.step}", FAINT, font(11), anchor="ra")
        for row, panel in enumerate(panels):
            top = HEADER + row * (STRIP_SIDE + GAP)
            sheet.paste(_views(panel, look, STRIP_SIDE, scales), (left, top))
            note = _note(panel, look)
            if note:
                tag(draw, (left + 3, top + STRIP_SIDE - 3), note)
    for row, panel in enumerate(panels):
        top = HEADER + row * (STRIP_SIDE + GAP)
        _label(draw, panel, (MARGIN, top + 34))
        if panel.name in scales:
            _colour_bar(sheet, panel, scales[panel.name], (width - SCALE_WIDTH + 4, top), STRIP_SIDE)
        else:
            mask_legend(draw, (width - SCALE_WIDTH + 4, top + 34))
    names = ", ".join(story.scene.embodiment.views)
    draw.text((LABEL_WIDTH, height - 26), f"time runs from left to right; each cell: views {names}", FAINT, font(12))
    return sheet


def draw_frame(story: Story, number: int, scales: Scales) -> np.ndarray:
    """Moment `number` of the video, (H, W, 3) uint8: all panels in rows of three."""
    look = story.looks[number]
    panels, views = drawn_panels(story.looks), story.scene.embodiment.num_views
    cell = views * CLIP_SIDE + (views - 1) * VIEW_GAP
    block_width, block_height = cell + GAP, CLIP_SIDE + 44
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = MARGIN + columns * block_width, HEADER + rows * block_height + 20
    frame = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(frame)
    _heading(draw, story, MARGIN)
    draw.text((width - MARGIN, 12), f"{story.seconds(look):.1f} s, step {look.moment.step}", INK, font(14), anchor="ra")
    for place, panel in enumerate(panels):
        left = MARGIN + (place % columns) * block_width
        top = HEADER - 14 + (place // columns) * block_height
        note = _note(panel, look)
        draw.text((left, top), panel.title, INK, font(14))
        draw.text((left + cell, top + 2), ", ".join(filter(None, (panel.subtitle, note))), FAINT, font(11), anchor="ra")
        frame.paste(_views(panel, look, CLIP_SIDE, scales), (left, top + 20))
    done = number / max(len(story.looks) - 1, 1)
    draw.rectangle((MARGIN, height - 12, width - MARGIN, height - 8), (225, 227, 232))
    draw.rectangle((MARGIN, height - 12, MARGIN + done * (width - 2 * MARGIN), height - 8), INK)
    return np.asarray(frame)


def overlap(look: Look) -> list[float]:
    """Overlap (IoU) of predicted and true mask, of each view in which there is either; empty without masks."""
    if MASK not in look.maps or look.moment.masks is None:
        return []
    pairs = zip(look.maps[MASK], look.moment.masks, strict=True)
    ious = [mask_iou(paste(logits, look.crop_box, true.shape), true) for logits, true in pairs]
    return [iou for iou in ious if iou is not None]


def _heading(draw: ImageDraw.ImageDraw, story: Story, left: int) -> None:
    draw.text((left, 10), f'"{story.scene.instruction}"', INK, font(17))
    draw.text((left, 34), f"policy {story.policy}, {story.scene.title}", FAINT, font(12))


def _views(panel: Panel, look: Look, side: int, scales: Scales) -> Image.Image:
    """All views side by side."""
    views = len(look.moment.images)
    picture = Image.new("RGB", (views * side + (views - 1) * VIEW_GAP, side), PAPER)
    for view in range(views):
        drawn = draw_panel(panel, look, view, side, scales.get(panel.name, (0.0, 1.0)))
        picture.paste(Image.fromarray(drawn), (view * (side + VIEW_GAP), 0))
    return picture


def _note(panel: Panel, look: Look) -> str:
    """The figure of a cell: overlap of the masks, or how much of the attention is on images."""
    if panel.name == MASK:
        ious = overlap(look)
        return f"IoU {np.mean(ious):.2f}" if ious else ""
    share = look.shares.get(panel.name)
    return "" if share is None or share > 0.999 else f"{share:.0%} on images"


def _label(draw: ImageDraw.ImageDraw, panel: Panel, place: tuple[int, int]) -> None:
    left, top = place
    draw.text((left, top), panel.title, INK, font(15))
    draw.text((left, top + 22), panel.subtitle, FAINT, font(12))


def _colour_bar(
    sheet: Image.Image, panel: Panel, scale: tuple[float, float], place: tuple[int, int], height: int
) -> None:
    left, top = place
    gradient = colours(panel.colours, np.linspace(1, 0, height))[:, None].repeat(10, axis=1)
    sheet.paste(Image.fromarray(gradient.astype(np.uint8)), place)
    draw = ImageDraw.Draw(sheet)
    low, high = scale
    marks = {high: top, low: top + height - 14}
    if not panel.symmetric and 1.6 < high < 8:  # where the 1 does not cover an end
        marks[1.0] = round(top + (1 - (1 - low) / (high - low)) * height) - 7
    for value, y in marks.items():
        draw.text((left + 15, y), f"{value:.3g}", INK, font(12))
