"""From a draft and its image to a record that keeps every rule."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from pokevla.data.curation.coordinates import convert_box, convert_points, rewrite_padded_boxes
from pokevla.data.curation.drafts import Draft, ImageBytes, ImageFile
from pokevla.data.curation.images import MAX_FILE_BYTES, MAX_PIXELS, UNDECODABLE, Opened, find_image
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.texts import check_text, with_suffix
from pokevla.data.records import Box, Point, format_boxes, format_points, quantise
from pokevla.errors import DataError
from pokevla.files.texts import read_bytes

MAX_POINTS = 64
MIN_MASK_PIXELS = 50
MIN_MASK_IOU = 0.5
MAX_HEAT_DISTANCE = 0.1
"""How far the maximum of a heat map may be from its point, as a share of the larger side."""
MAX_STEP, MIN_PATH = 0.4, 0.03
"""Longest step of a trace as a share of the width, and shortest trace as a share of the diagonal."""


def answer_fields(draft: Draft, images: Sequence[Opened], root: Path, max_chars: int) -> dict[str, Any]:
    """What of a record follows from the draft: question, answer, targets, further turns, flags.

    Raises Reject.
    """
    size = (images[0].width, images[0].height) if images else (0, 0)
    flags = [flag for image in images for flag in image.flags]
    question, answer = draft.question, draft.text
    further = draft.further_turns
    points: tuple[Point, ...] = ()
    boxes: tuple[Box, ...] = ()
    if draft.padded_boxes:
        question, answer = rewrite_padded_boxes(question, size), rewrite_padded_boxes(answer, size)
        further = tuple((rewrite_padded_boxes(q, size), rewrite_padded_boxes(a, size)) for q, a in further)
    for image in images:
        _check_size(draft, image)
    _check_several(draft, images)
    if draft.kind in ("point", "trace"):
        points = _points(draft, size, root, flags)
        answer = format_points(points)
    elif draft.kind == "box":
        boxes = _boxes(draft, size, root, flags)
        answer = format_boxes(boxes)
    elif draft.kind == "text" and draft.points:  # reasoning that ends in points
        points = _points(draft, size, root, flags)
        answer = (
            f"{check_text(answer, max_chars)}\n{format_points(points)}" if answer.strip() else format_points(points)
        )
    elif draft.kind == "choice" and draft.text not in draft.options:
        raise Reject("choice_not_in_options", f"{draft.text!r} of {', '.join(draft.options)}")
    rewrite = draft.kind == "box" and (len(boxes) > 1 or draft.box_order == "xywh" or draft.scale != "unit")
    return {
        "answer_kind": draft.kind,
        "question": with_suffix(
            check_text(question, max_chars), draft.kind, several_boxes=len(boxes) > 1, rewrite=rewrite
        ),
        "answer": check_text(answer, max_chars),
        "points": points,
        "boxes": boxes,
        "choice": draft.text if draft.kind == "choice" else None,
        "further_turns": tuple((check_text(q, max_chars), check_text(a, max_chars)) for q, a in further),
        "flags": tuple(dict.fromkeys(flags)),
    }


def _check_size(draft: Draft, image: Opened) -> None:
    size, stated = (image.width, image.height), draft.stated_size
    has_coordinates = bool(draft.points or draft.boxes or draft.padded_boxes or draft.mask)
    if image.turned and has_coordinates and not (stated == size and size[0] != size[1]):
        raise Reject("exif_rotated", f"{size[0]}x{size[1]} after the turn")
    if stated is not None and stated != size:
        raise Reject("size_mismatch", f"{stated[0]}x{stated[1]} stated, {size[0]}x{size[1]} stored")


def _check_several(draft: Draft, images: Sequence[Opened]) -> None:
    """Coordinates do not say which image they are of, so those that depend on its size need images of one size."""
    depends = draft.padded_boxes or ((draft.points or draft.boxes) and draft.scale in ("pixel", "padded"))
    if depends and len({(image.width, image.height) for image in images}) > 1:
        raise Reject("multi_image", "images of several sizes")


def _points(draft: Draft, size: tuple[int, int], root: Path, flags: list[str]) -> tuple[Point, ...]:
    source: Sequence[Sequence[float]] = draft.points
    if draft.mask is not None and not source:
        boxes, _ = _converted(draft, size)
        inside = _mask(root, draft.mask, size)
        _check_box(boxes[0], inside)  # a mask that does not belong to the box gives no points
        source = _points_inside(inside)
    if len(source) > MAX_POINTS:
        raise Reject("points_too_many", str(len(source)))
    if draft.kind != "trace" and len(source) > 1 and len({tuple(p) for p in source}) == 1:
        raise Reject("points_identical", str(tuple(source[0])))
    points, moved = convert_points(source, draft.scale, size)
    if moved:
        flags.append("coord_clamped")
    if draft.kind == "trace":
        _check_trace(points, size)
    if draft.heat_map:
        _check_heat_map(points[0], draft, root, flags)
    return tuple(points)


def _boxes(draft: Draft, size: tuple[int, int], root: Path, flags: list[str]) -> tuple[Box, ...]:
    boxes, moved = _converted(draft, size)
    if moved:
        flags.append("coord_clamped")
    if draft.mask is not None:
        _check_box(boxes[0], _mask(root, draft.mask, size))
    return boxes


def _converted(draft: Draft, size: tuple[int, int]) -> tuple[tuple[Box, ...], bool]:
    """The boxes of a draft, and whether one was moved."""
    converted = [convert_box(box, draft.scale, draft.box_order, size) for box in draft.boxes]
    return tuple(box for box, _ in converted), any(moved for _, moved in converted)


def _check_box(box: Box, inside: np.ndarray) -> None:
    iou = _iou(box, _tight_box(inside))
    if iou < MIN_MASK_IOU:
        raise Reject("mask_box_iou", f"{iou:.2f}")


def _check_trace(points: Sequence[Point], size: tuple[int, int]) -> None:
    pixels = np.asarray(points) * np.asarray(size)
    if len(set(points)) < 2:
        raise Reject("trace_short", f"{len(set(points))} points")
    steps = np.linalg.norm(np.diff(pixels, axis=0), axis=1)
    if steps.sum() < MIN_PATH * float(np.hypot(*size)):
        raise Reject("trace_short", f"{steps.sum():.1f} pixels")
    if steps.max() > MAX_STEP * size[0]:
        raise Reject("trace_jump", f"a step of {steps.max():.0f} pixels")
    if len(steps) > 1 and steps[0] > steps[1:].sum() > 0:
        raise Reject("trace_jump", "the first step is longer than all others together")


def _decoded(root: Path, picture: str | ImageBytes) -> np.ndarray:
    """(H,W) of a mask or heat map. Raises Reject `mask_missing`."""
    name = picture if isinstance(picture, str) else picture.name
    try:
        if isinstance(picture, str):
            content = read_bytes(find_image(root, ImageFile(picture)), max_bytes=MAX_FILE_BYTES)
        else:
            content = picture.content
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Reject("mask_missing", name)
            values = np.asarray(image)
    except (Reject, DataError, Image.DecompressionBombError, *UNDECODABLE) as error:
        raise Reject("mask_missing", name[:200]) from error
    return values.max(axis=2) if values.ndim == 3 else values


def _mask(root: Path, picture: str | ImageBytes, size: tuple[int, int]) -> np.ndarray:
    inside = _decoded(root, picture) > 0
    if inside.shape != (size[1], size[0]):
        raise Reject("size_mismatch", f"mask of {inside.shape[1]}x{inside.shape[0]}, image of {size[0]}x{size[1]}")
    if inside.sum() < MIN_MASK_PIXELS:
        raise Reject("mask_empty", f"{int(inside.sum())} pixels")
    return inside


def _tight_box(inside: np.ndarray) -> Box:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    height, width = inside.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def _iou(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0.0, width) * max(0.0, height)
    return both / (sum((b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)) - both)


def _points_inside(inside: np.ndarray, most: int = 3) -> list[Point]:
    """Up to `most` pixels of a mask, each as far as possible from its border and from the earlier ones: the maximum of
    the distance transform. A centroid may lie outside of a ring."""
    # Beyond the box around the mask nothing is nearer to a pixel of it than the edge of the box.
    top, bottom = np.flatnonzero(inside.any(axis=1))[[0, -1]]
    left, right = np.flatnonzero(inside.any(axis=0))[[0, -1]]
    free = np.pad(inside[top : bottom + 1, left : right + 1], 1)
    points = []
    for _ in range(most):
        distance = np.asarray(ndimage.distance_transform_edt(free))
        y, x = np.unravel_index(int(distance.argmax()), distance.shape)
        if points and distance[y, x] < 3:  # a sliver
            break
        points.append((float(left + x - 1) + 0.5, float(top + y - 1) + 0.5))
        radius = max(2.0, float(distance[y, x]))
        rows, columns = np.ogrid[: free.shape[0], : free.shape[1]]
        free = free & ((rows - y) ** 2 + (columns - x) ** 2 > radius**2)
    return points


def _check_heat_map(point: Point, draft: Draft, root: Path, flags: list[str]) -> None:
    for name in draft.heat_map:
        try:
            heat = _decoded(root, name)
        except Reject:
            continue
        y, x = np.unravel_index(int(heat.argmax()), heat.shape)
        height, width = heat.shape
        off = np.hypot((x + 0.5) - point[0] * width, (y + 0.5) - point[1] * height) / max(width, height)
        if heat.max() == 0:
            raise Reject("mask_empty", name)
        if off > MAX_HEAT_DISTANCE:
            raise Reject("point_off_mask", f"{100 * off:.0f} % of the image away")
        return
    flags.append("heat_map_missing")


def target_of(fields: dict[str, Any]) -> Point | None:
    """A place that stands for a record's target, for histograms."""
    if fields["points"]:
        return fields["points"][0]
    if fields["boxes"]:
        x1, y1, x2, y2 = fields["boxes"][0]
        return quantise((x1 + x2) / 2), quantise((y1 + y2) / 2)
    return None
