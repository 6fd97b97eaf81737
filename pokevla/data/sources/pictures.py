"""Labelled images for questions: an image, its instances and their locations. From scenes or demonstrations.

Images are upright and contain one view, since a question is about one image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.sources.demonstrations import describe, open_hdf5, read_demos
from pokevla.data.sources.tasks import phrase
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError

SMALLEST_AREA = 0.0012
"""Fraction of the image an instance must cover to count as visible: 20 pixels of 128 x 128."""
FURNITURE = ("cabinet", "stove", "rack", "microwave", "basket", "caddy", "desk", "drawer", "shelf")
"""Words in the names of instances that a gripper cannot lift in LIBERO."""
CONTAINERS = ("basket", "plate", "bowl", "caddy", "tray", "ramekin", "frypan")
"""Words in the names of instances that other objects are placed in or on."""

INSTANCES_OF_TASK = "instances/"
"""Prefix of the attributes of a scenes file that name the instances of a task, in the order of their mask values."""


@dataclass(frozen=True)
class Visible:
    """One instance visible in an image. Coordinates are relative to the image, in [0,1]."""

    instance: str
    phrase: str
    mask: np.ndarray
    """(H,W) bool."""

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """Tight bounding box x1, y1, x2, y2."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        height, width = self.mask.shape
        return (
            float(columns[0] / width),
            float(rows[0] / height),
            float((columns[-1] + 1) / width),
            float((rows[-1] + 1) / height),
        )

    @cached_property
    def centre(self) -> tuple[float, float]:
        """Centre of the mask pixel nearest to the centroid, which itself may lie outside the mask (rings, clipped
        shapes)."""
        return snapped_centroid(self.mask)

    @cached_property
    def grasp(self) -> tuple[float, float]:
        """A point on the upper half of the mask: seen from the front, a gripper grasps an object at its top."""
        rows = np.flatnonzero(self.mask.any(axis=1))
        upper = self.mask.copy()
        upper[(rows[0] + rows[-1]) // 2 + 1 :] = False
        return snapped_centroid(upper)

    @property
    def graspable(self) -> bool:
        """Whether a gripper can lift this object."""
        return not any(word in self.instance for word in FURNITURE)

    @property
    def container(self) -> bool:
        """Whether other objects are placed in or on it."""
        return is_container(self.instance)


def is_container(name: str) -> bool:
    """Whether the name or phrase of an instance denotes something that objects are placed in or on."""
    return any(word in name for word in CONTAINERS)


def snapped_centroid(mask: np.ndarray) -> tuple[float, float]:
    """Relative (x, y) of the centre of the mask pixel nearest to the centroid of a non-empty mask (H,W)."""
    ys, xs = np.nonzero(mask)
    nearest = int(np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2))
    height, width = mask.shape
    return float((xs[nearest] + 0.5) / width), float((ys[nearest] + 0.5) / height)


@dataclass(frozen=True)
class LabelledPicture:
    """One view at one moment, with its visible and hidden instances."""

    key: str
    subset: str
    split: str
    view: str
    at_rest: bool
    """Whether all objects stand on the table (scenes). If so, lower in the base view means further from the robot."""
    image: np.ndarray
    """(H,W,3) uint8."""
    visible: tuple[Visible, ...]
    hidden: tuple[str, ...]
    """Phrases of objects of the same suite that are not visible in this image."""

    @property
    def hidden_containers(self) -> tuple[str, ...]:
        """Those of `hidden` that other objects are placed in or on: the wrist view rarely shows the basket."""
        return tuple(name for name in self.hidden if is_container(name))

    @property
    def nameable(self) -> tuple[Visible, ...]:
        """Visible instances whose phrase is unambiguous in this image."""
        phrases = [v.phrase for v in self.visible]
        return tuple(v for v in self.visible if phrases.count(v.phrase) == 1)


def _visible(mask: np.ndarray, instances: tuple[str, ...]) -> tuple[Visible, ...]:
    least = SMALLEST_AREA * mask.size
    visible = []
    for number, instance in enumerate(instances, start=1):
        inside = mask == number
        if inside.sum() >= least:
            visible.append(Visible(instance, phrase(instance), inside))
    return tuple(visible)


def _hidden(mask: np.ndarray, instances: tuple[str, ...], vocabulary: set[str]) -> tuple[str, ...]:
    """Phrases of the vocabulary whose objects have no visible pixel."""
    shown = {phrase(instances[n - 1]) for n in np.unique(mask) if n > 0}
    return tuple(sorted(vocabulary - shown))


def scene_pictures(path: Path, vocabulary: set[str]) -> Iterator[LabelledPicture]:
    """Both views of every scene of a scenes file. Raises DataError naming file and key."""
    with open_hdf5(path) as file:
        for key in ("images", "masks", "scene_task", "split"):
            if key not in file:
                raise DataError(f"{path}: `{key}` is missing.", "Give a file written by `pokevla data scenes`.")
        content: Any = file
        splits, tasks = content["split"].asstr()[()], content["scene_task"][()]
        suite = path.stem.removesuffix("_scenes")
        for index, (task, split) in enumerate(zip(tasks, splits, strict=True)):
            instances = tuple(_json(file.attrs, f"{INSTANCES_OF_TASK}{task}", path))
            try:
                images, masks = content["images"][index], content["masks"][index]
            except OSError as error:
                raise DataError(f"{path}: scene {index} cannot be read, the file is damaged ({error}).") from error
            for v, view in enumerate(LIBERO.views):
                yield LabelledPicture(
                    key=f"{suite}-s{index:05d}-{view}",
                    subset=suite,
                    split=str(split),
                    view=view,
                    at_rest=True,
                    image=images[v],
                    visible=_visible(masks[v], instances),
                    hidden=_hidden(masks[v], instances, vocabulary),
                )


def demo_pictures(path: Path, vocabulary: set[str], frame_stride: int) -> Iterator[LabelledPicture]:
    """Both views of every `frame_stride`-th rendered frame of a demonstration file that has masks."""
    header = describe(path)
    if header.instances is None:
        raise DataError(f"{path} has no instance masks.", "Give demonstrations made by `pokevla data demos`.")
    for demo in read_demos(header):
        if demo.masks is None:
            raise DataError(f"{path}: data/{demo.name} has no masks.", "Make the demonstrations with masks.")
        task = header.task_index if header.task_index is not None else 0
        for t in np.flatnonzero(demo.rendered)[::frame_stride]:
            for view in LIBERO.views:
                mask = demo.masks[view][t]
                yield LabelledPicture(
                    key=f"{header.suite}-t{task:02d}-{demo.name}-f{t:04d}-{view}",
                    subset=header.suite,
                    split=demo.split or "train",
                    view=view,
                    at_rest=False,
                    image=demo.images[view][t],
                    visible=_visible(mask, header.instances),
                    hidden=_hidden(mask, header.instances, vocabulary),
                )


def is_scenes_file(path: Path) -> bool:
    """Whether an HDF5 file holds scenes rather than demonstrations. Raises DataError if it cannot be opened."""
    with open_hdf5(path) as file:
        return "scene_task" in file


def instance_phrases(path: Path) -> set[str]:
    """Phrases of the instances of a file: the vocabulary of questions about absent objects."""
    if is_scenes_file(path):
        with open_hdf5(path) as file:
            tasks = [key for key in file.attrs if key.startswith(INSTANCES_OF_TASK)]
            return {phrase(instance) for key in tasks for instance in _json(file.attrs, key, path)}
    return {phrase(instance) for instance in describe(path).instances or ()}


def _json(attributes: Any, key: str, path: Path) -> Any:
    """A JSON attribute. Raises DataError naming file and attribute."""
    if key not in attributes:
        raise DataError(f"{path}: attribute `{key}` is missing.", "Give a file written by `pokevla data scenes`.")
    value = attributes[key]
    try:
        return json.loads(value.decode() if isinstance(value, bytes) else value)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: attribute `{key}` is not JSON.") from error
