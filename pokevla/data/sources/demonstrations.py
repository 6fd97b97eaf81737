"""Reads LIBERO demonstrations (HDF5), both the published ones and ours, one episode at a time.

Published files store the observation AFTER the action of the same row; ours, and those of OpenVLA-OFT's regeneration,
BEFORE it (`alignment.py`). The reader returns both in the same form: frame t is what the robot saw before action t. All
store images upside down (OpenGL); the reader returns them upright.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.sources.alignment import Alignment, find_alignment, refuse_other_alignment
from pokevla.data.sources.skips import Skips
from pokevla.data.sources.tasks import identify
from pokevla.embodiment.finite import refuse_bad_rows
from pokevla.embodiment.libero import BASE, LIBERO, WRIST
from pokevla.errors import DataError
from pokevla.files.foreign.hdf5 import REMEDY, Description, Hdf5File
from pokevla.files.foreign.process import ForeignReader

CAMERAS = {BASE: "agentview", WRIST: "eye_in_hand"}
SUFFIX = ".hdf5"
DATA = "data"
"""The group that holds the episodes."""
NUMBERS, PIXELS = "biuf", "u"
"""Kinds of numpy types."""


@dataclass(frozen=True)
class DemoFile:
    """Metadata that a file stores for all its episodes."""

    path: Path
    suite: str
    task: str
    task_index: int | None
    file_instruction: str | None
    """The wording that the file stores, which for published files is the BDDL's; None if it stores none."""
    alignment: Alignment
    """Whether the observation of a row was made before or after its action."""
    instances: tuple[str, ...] | None
    """Instance i has mask value i + 1; None in published files."""
    target_instances: tuple[str, ...] | None
    collection: dict[str, Any] | None
    demo_names: tuple[str, ...]
    is_fast_rendered: bool = False
    """Whether our recorder or our regeneration rendered it with `--fast-rendering`."""


@dataclass(frozen=True)
class Demo:
    """One episode of T frames, each observed before the action of the same row. Widths A and P are LIBERO's."""

    name: str
    actions: np.ndarray
    """(T,A) float64, raw LIBERO actions without noise: the training target."""
    executed_actions: np.ndarray
    """(T,A) float64, the actions that were executed; equal to `actions` if the file has no such column."""
    proprio: np.ndarray
    """(T,P) float32: position 3 m, axis-angle 3 rad, fingers 2 m."""
    images: dict[str, np.ndarray]
    """View -> (T,H,W,3) uint8, upright. Rows outside `rendered` are undefined."""
    masks: dict[str, np.ndarray] | None
    """View -> (T,H,W) uint8 instance numbers, upright."""
    rendered: np.ndarray
    """(T,) bool."""
    split: str | None
    init_state_index: int | None
    target_shift: tuple[float, float] | None


def describe(path: Path, reader: ForeignReader, alignment: Alignment | None = None) -> DemoFile:
    """Read the header of a demonstration file. `alignment` is what the user says about it, for files that do not tell.

    Raises:
        DataError: something is missing or damaged, or the alignment is unknown or contradicted. Names file and key.
    """
    file = Hdf5File(path, reader)
    if not file.is_group(DATA):
        raise DataError(f"{path} has no group `data`.", REMEDY)
    suite, task, index = identify(path)
    instances, targets = (_names(file, key) for key in ("instances", "target_instances"))
    collection = file.json_attribute(DATA, "pokevla_collection")
    if not isinstance(collection, dict | None):
        raise DataError(f"{path}: attribute `pokevla_collection` of data is not a JSON object.", REMEDY)
    file_instruction, names = _file_instruction(file), _demo_names(file)
    return DemoFile(
        path=path,
        suite=suite,
        task=task,
        task_index=index,
        file_instruction=file_instruction,
        alignment=find_alignment(file, [f"{DATA}/{name}" for name in names], alignment),
        instances=instances,
        target_instances=targets,
        collection=collection,
        demo_names=names,
        is_fast_rendered=_is_fast_rendered(file),
    )


def _is_fast_rendered(file: Hdf5File) -> bool:
    """What drew the pictures last decides; published files say nothing, and are not."""
    for name in ("pokevla_masks", "pokevla_regeneration", "pokevla_collection"):
        made = file.json_attribute(DATA, name)
        if isinstance(made, dict) and isinstance(made.get("fast_rendering"), bool):
            return made["fast_rendering"]
    return False


def _demo_names(file: Hdf5File) -> tuple[str, ...]:
    """Names of the episodes, by number. Another name in their group is refused: its data would be lost in silence."""
    names = file.keys(DATA)
    others = [name for name in names if not re.fullmatch(r"demo_(0|[1-9]\d{0,8})", name)]
    if not names or others:
        found = f"data/{others[0]}" if others else "nothing"
        raise DataError(f"{file.path}: `data` should hold demo_0, demo_1, ..., not {found}.", REMEDY)
    return tuple(sorted(names, key=lambda name: int(name.removeprefix("demo_"))))


def image_sizes(header: DemoFile, reader: ForeignReader) -> set[tuple[int, int]]:
    """(height, width) of the images of all episodes. Episodes in another layout are passed over: `read_demo` names
    them."""
    file = Hdf5File(header.path, reader)
    keys = [f"{DATA}/{name}/obs/{camera}_rgb" for name in header.demo_names for camera in CAMERAS.values()]
    sizes = set()
    for key in keys:
        try:
            shape = file.describe(key).shape
        except DataError:
            continue
        if len(shape) == 4 and min(shape) > 0:
            sizes.add((shape[1], shape[2]))
    return sizes


def read_demos(header: DemoFile, reader: ForeignReader, skips: Skips) -> Generator[tuple[int, Demo]]:
    """Yield the episodes of a file with their place in it. The next one is read meanwhile; the reader is in use until
    the generator is closed.

    Raises:
        DataError: more episodes than `skips` allows cannot be used.
    """
    names, readings = header.demo_names, deque[Future[Demo]]()
    with ThreadPoolExecutor(1) as pool:
        for place, name in enumerate(names):
            for coming in names[place : place + 2][len(readings) :]:
                readings.append(pool.submit(read_demo, header, coming, reader))
            try:
                demo = readings.popleft().result()
            except DataError as error:
                skips.add(f"{header.path.name}: {DATA}/{name}", error)
                continue
            yield place, demo


def read_demo(header: DemoFile, name: str, reader: ForeignReader) -> Demo:
    """Read the episode `name` of a file.

    Raises:
        DataError: something is missing, damaged, of another shape, or a number is not finite or absurd. Names file,
            demo, key and row.
    """
    file, group = Hdf5File(header.path, reader), f"{DATA}/{name}"
    layout = _layout(file, group)
    refuse_other_alignment(file, group, header.alignment)
    arrays = {key: file.read(f"{group}/{key}") for key in layout}
    for key in ("actions", "executed_actions", "obs/ee_states", "obs/gripper_states"):
        if key in arrays:
            refuse_bad_rows(arrays[key], f"{header.path}: {group}/{key}", "Record this episode again, or leave it out.")
    actions = arrays["actions"].astype(np.float64)
    upright = (slice(None), slice(None, None, -1), slice(None, None, -1))  # rotate by 180 degrees, here only
    masks = None
    if all(f"obs/{camera}_mask" in arrays for camera in CAMERAS.values()):
        masks = {view: arrays[f"obs/{camera}_mask"][upright] for view, camera in CAMERAS.items()}
        for camera in CAMERAS.values():
            _refuse_unknown_instances(header, arrays[f"obs/{camera}_mask"], f"{header.path}: {group}/obs/{camera}_mask")
    demo = Demo(
        name=name,
        actions=actions,
        executed_actions=arrays.get("executed_actions", actions).astype(np.float64),
        proprio=np.concatenate([arrays["obs/ee_states"], arrays["obs/gripper_states"]], axis=1).astype(np.float32),
        images={view: arrays[f"obs/{camera}_rgb"][upright] for view, camera in CAMERAS.items()},
        masks=masks,
        rendered=arrays.get("obs/rendered", np.ones(len(actions))).astype(bool),
        split=_split(file, group),
        init_state_index=init_state_index(file, group),
        target_shift=_target_shift(file, group),
    )
    demo = demo if header.alignment == "before" else _shift_to_before(demo)
    if not demo.rendered.any():
        raise DataError(f"{header.path}: {group} has no frame with an image.", REMEDY)
    return demo


def _layout(file: Hdf5File, group: str) -> dict[str, Description]:
    """The arrays of an episode by key, all of the expected shape. Nothing is read before all of them fit."""
    described: dict[str, Description] = {}

    def expect(key: str, shape: tuple[int | None, ...], kinds: str) -> tuple[int, ...]:
        found = file.describe(f"{group}/{key}")
        fits = len(found.shape) == len(shape) and all(
            size in (None, actual) for size, actual in zip(shape, found.shape, strict=True)
        )
        if not fits or found.dtype[1:2] not in kinds or (kinds == PIXELS and found.dtype != "|u1"):
            raise DataError(
                f"{file.path}: {group}/{key} has shape {found.shape} and type {found.dtype}, expected {shape}.", REMEDY
            )
        described[key] = found
        return found.shape

    length = expect("actions", (None, LIBERO.action_width), NUMBERS)[0]
    if f"{group}/executed_actions" in file:
        expect("executed_actions", (length, LIBERO.action_width), NUMBERS)
    position, axis_angle, fingers = (field.size for field in LIBERO.proprio)
    expect("obs/ee_states", (length, position + axis_angle), NUMBERS)
    expect("obs/gripper_states", (length, fingers), NUMBERS)
    sizes = {camera: expect(f"obs/{camera}_rgb", (length, None, None, 3), PIXELS) for camera in CAMERAS.values()}
    if all(f"{group}/obs/{camera}_mask" in file for camera in CAMERAS.values()):
        for camera, size in sizes.items():
            expect(f"obs/{camera}_mask", size[:3], PIXELS)
    if f"{group}/obs/rendered" in file:
        expect("obs/rendered", (length,), NUMBERS)
    file.refuse_larger(sum(found.size_bytes for found in described.values()), group)
    return described


def _shift_to_before(demo: Demo) -> Demo:
    """Convert the published alignment to ours: the image after action t-1 is the one before action t. The first action
    is dropped."""
    return Demo(
        name=demo.name,
        actions=demo.actions[1:],
        executed_actions=demo.executed_actions[1:],
        proprio=demo.proprio[:-1],
        images={view: rows[:-1] for view, rows in demo.images.items()},
        masks={view: rows[:-1] for view, rows in demo.masks.items()} if demo.masks is not None else None,
        rendered=demo.rendered[:-1],
        split=demo.split,
        init_state_index=demo.init_state_index,
        target_shift=demo.target_shift,
    )


def _refuse_unknown_instances(header: DemoFile, masks: np.ndarray, what: str) -> None:
    """Refuse mask values (T,H,W) that are no instance's number."""
    count = len(header.instances or ())
    if header.instances is not None and masks.size and masks.max() > count:
        row = int(np.flatnonzero(masks.max(axis=(1, 2)) > count)[0])
        raise DataError(
            f"{what}, row {row}: mask value {masks[row].max()}, but the file names {count} instances.", REMEDY
        )


def _split(file: Hdf5File, group: str) -> str | None:
    split = file.attribute(group, "split")
    if not isinstance(split, str | None):
        raise DataError(f"{file.path}: attribute `split` of {group} is not a text.", REMEDY)
    return split


def init_state_index(file: Hdf5File, group: str) -> int | None:
    """Which of the shipped initial states an episode started from; None if the file does not say."""
    index = file.attribute(group, "init_state_index")
    if index is None:
        return None
    if isinstance(index, str) or index.size != 1 or index.dtype.kind not in "iu":
        raise DataError(f"{file.path}: attribute `init_state_index` of {group} is not an integer.", REMEDY)
    return int(index.reshape(()))


def _target_shift(file: Hdf5File, group: str) -> tuple[float, float] | None:
    shift = file.attribute(group, "target_shift")
    if shift is None:
        return None
    what = f"{file.path}: attribute `target_shift` of {group}"
    if isinstance(shift, str) or shift.shape != (2,) or shift.dtype.kind not in NUMBERS:
        raise DataError(f"{what} is not a pair of numbers.", REMEDY)
    refuse_bad_rows(shift[None], what, REMEDY)
    return float(shift[0]), float(shift[1])


def _names(file: Hdf5File, key: str) -> tuple[str, ...] | None:
    """A list of names in JSON, or None if the file has none."""
    names = file.json_attribute(DATA, key)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file.path}: attribute `{key}` of data is not a JSON list of names.", REMEDY)
    return tuple(names)


def _file_instruction(file: Hdf5File) -> str | None:
    """The instruction that the file stores; None without `problem_info`, as in OpenVLA-OFT's regenerated files.
    Published files store it as a string or as a list of characters, sometimes in quotes."""
    info = file.json_attribute(DATA, "problem_info")
    if info is None:
        return None
    words = info.get("language_instruction") if isinstance(info, dict) else None
    if not isinstance(words, str | list) or not all(isinstance(word, str) for word in words):
        raise DataError(f"{file.path}: attribute `problem_info` of data lacks a text `language_instruction`.", REMEDY)
    return "".join(words).strip().strip('"')
