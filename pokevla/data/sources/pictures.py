"""Labelled images for questions: an image, its instances and their locations. From scenes or demonstrations.

Images are upright and contain one view, since a question is about one image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pokevla.data.sources.aspect import Squares
from pokevla.data.sources.demonstrations import DemoFile, read_demos
from pokevla.data.sources.skips import Skips
from pokevla.data.sources.tasks import phrase
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import DataError
from pokevla.files.foreign.hdf5 import Hdf5File
from pokevla.files.foreign.process import ForeignReader

SMALLEST_AREA = 0.0012
"""Fraction of the image an instance must cover to count as visible: 20 pixels of 128 x 128."""
FURNITURE = ("cabinet", "stove", "rack", "microwave", "basket", "caddy", "desk", "drawer", "shelf")
"""Words in the names of instances that a gripper cannot lift in LIBERO."""
CONTAINERS = ("basket", "plate", "bowl", "caddy", "tray", "ramekin", "frypan")
"""Words in the names of instances that other objects are placed in or on."""

SCENES_REMEDY = "Give a file written by `pokevla data scenes`."
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


@dataclass(frozen=True)
class SceneFile:
    """Metadata of a scenes file with N scenes."""

    path: Path
    suite: str
    splits: list[str]
    tasks: np.ndarray
    """(N,) int."""
    instances: dict[int, tuple[str, ...]]
    """Task -> its instances, in the order of their mask values."""
    image_size: tuple[int, int]
    """Height, width."""


def describe_scenes(path: Path, reader: ForeignReader) -> SceneFile:
    """Read the header of a scenes file. Raises DataError naming file and key."""
    file = Hdf5File(path, reader, SCENES_REMEDY)
    for key in ("images", "masks", "scene_task", "split"):
        if key not in file:
            raise DataError(f"{path}: `{key}` is missing.", SCENES_REMEDY)
    images, masks, tasks = (file.describe(key) for key in ("images", "masks", "scene_task"))
    splits = file.texts("split")
    size = images.shape[2:4]
    expected = {
        "images": (images, (len(splits), len(LIBERO.views), *size, 3), "|u1"),
        "masks": (masks, (len(splits), len(LIBERO.views), *size), "|u1"),
        "scene_task": (tasks, (len(splits),), tasks.dtype if tasks.dtype[1:2] in ("i", "u") else "integer"),
    }
    for key, (actual, shape, dtype) in expected.items():
        if (actual.shape, actual.dtype) != (shape, dtype):
            raise DataError(
                f"{path}: `{key}` has shape {actual.shape} and type {actual.dtype}, expected {shape} and {dtype}.",
                SCENES_REMEDY,
            )
    numbers = file.read("scene_task")
    instances = {int(task): _instances(file, int(task)) for task in np.unique(numbers)}
    return SceneFile(path, path.stem.removesuffix("_scenes"), splits, numbers, instances, (size[0], size[1]))


def _instances(file: Hdf5File, task: int) -> tuple[str, ...]:
    names = file.json_attribute("", f"{INSTANCES_OF_TASK}{task}")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file.path}: attribute `{INSTANCES_OF_TASK}{task}` is not a list of names.", SCENES_REMEDY)
    return tuple(names)


def scene_pictures(
    scenes: SceneFile, vocabulary: set[str], squares: Squares, reader: ForeignReader, skips: Skips
) -> Iterator[LabelledPicture]:
    """Both views of every scene of a scenes file. Raises DataError if more than `skips` allows cannot be used."""
    file = Hdf5File(scenes.path, reader, SCENES_REMEDY)
    for index, (task, split) in enumerate(zip(scenes.tasks, scenes.splits, strict=True)):
        instances = scenes.instances[int(task)]
        try:
            images, masks = file.read("images", index), file.read("masks", index)
            if masks.size and masks.max() > len(instances):
                raise DataError(
                    f"{scenes.path}: masks of scene {index} have the value {masks.max()}, but the file names "
                    f"{len(instances)} instances of task {task}.",
                    SCENES_REMEDY,
                )
        except DataError as error:
            skips.add(f"{scenes.path.name}: scene {index}", error)
            continue
        images, masks = squares(images), squares(masks)
        for v, view in enumerate(LIBERO.views):
            yield LabelledPicture(
                key=f"{scenes.suite}-s{index:05d}-{view}",
                subset=scenes.suite,
                split=split,
                view=view,
                at_rest=True,
                image=images[v],
                visible=_visible(masks[v], instances),
                hidden=_hidden(masks[v], instances, vocabulary),
            )


def demo_pictures(
    header: DemoFile, vocabulary: set[str], frame_stride: int, squares: Squares, reader: ForeignReader, skips: Skips
) -> Iterator[LabelledPicture]:
    """Both views of every `frame_stride`-th rendered frame of a demonstration file that has masks."""
    if header.instances is None:
        raise DataError(f"{header.path} has no instance masks.", "Give demonstrations made by `pokevla data demos`.")
    with closing(read_demos(header, reader, skips)) as demos:
        for _, demo in demos:
            if demo.masks is None:
                raise DataError(f"{header.path}: data/{demo.name} has no masks.", "Make the demonstrations with masks.")
            task = header.task_index if header.task_index is not None else 0
            for t in np.flatnonzero(demo.rendered)[::frame_stride]:
                for view in LIBERO.views:
                    mask = squares(demo.masks[view][t : t + 1])[0]
                    yield LabelledPicture(
                        key=f"{header.suite}-t{task:02d}-{demo.name}-f{t:04d}-{view}",
                        subset=header.suite,
                        split=demo.split or "train",
                        view=view,
                        at_rest=False,
                        image=squares(demo.images[view][t : t + 1])[0],
                        visible=_visible(mask, header.instances),
                        hidden=_hidden(mask, header.instances, vocabulary),
                    )


def is_scenes_file(path: Path, reader: ForeignReader) -> bool:
    """Whether an HDF5 file holds scenes rather than demonstrations. Raises DataError if it cannot be opened."""
    return "scene_task" in Hdf5File(path, reader)
