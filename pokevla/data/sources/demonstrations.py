"""Reads LIBERO demonstrations (HDF5), both the published ones and ours, one episode at a time.

Published files store the observation AFTER the action of the same row; ours set `pokevla_obs_alignment = before`. The
reader returns both in the same form: frame t is what the robot saw before action t. Both store images upside down
(OpenGL); the reader returns them upright.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pokevla.data.sources.tasks import identify
from pokevla.embodiment.libero import BASE, LIBERO, WRIST
from pokevla.errors import DataError

CAMERAS = {BASE: "agentview", WRIST: "eye_in_hand"}
REMEDY = "Give a complete, readable file in the official LIBERO layout."


@dataclass(frozen=True)
class DemoFile:
    """Metadata that a file stores for all its episodes."""

    path: Path
    suite: str
    task: str
    task_index: int | None
    instruction: str
    aligned_before: bool
    instances: tuple[str, ...] | None
    """Instance i has mask value i + 1; None in published files."""
    target_instances: tuple[str, ...] | None
    collection: dict[str, Any] | None
    demo_names: tuple[str, ...]


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


def find_files(source: Path) -> list[Path]:
    """The HDF5 files of a source, sorted: the file itself, or all below a folder. Raises DataError if there is none."""
    if source.is_file():
        return [source]
    files = sorted(source.rglob("*.hdf5")) if source.is_dir() else []
    if not files:
        raise DataError(f"{source}: no such file, or no *.hdf5 below it.", "Check the path.")
    return files


def open_hdf5(path: Path) -> h5py.File:
    """Open for reading. Raises DataError if the file is missing, truncated, or not HDF5."""
    try:
        return h5py.File(path, "r")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing.", "Check the path.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be opened: truncated, or not HDF5 ({error}).", REMEDY) from error


def describe(path: Path) -> DemoFile:
    """Read the header of a demonstration file. Raises DataError naming file and key if something is missing."""
    with open_hdf5(path) as file:
        data: Any = file.get("data")
        if not isinstance(data, h5py.Group):
            raise DataError(f"{path} has no group `data`.", REMEDY)
        numbers = sorted(int(match[1]) for key in list(data) if (match := re.fullmatch(r"demo_(\d+)", str(key))))
        names = [f"demo_{number}" for number in numbers]
        if not names:
            raise DataError(f"{path}: `data` holds no demo_0, demo_1, ...", REMEDY)
        suite, task, index = identify(path)
        instances, targets = _json_attr(data, "instances", path), _json_attr(data, "target_instances", path)
        return DemoFile(
            path=path,
            suite=suite,
            task=task,
            task_index=index,
            instruction=_instruction(data, path),
            aligned_before=_text(data.attrs.get("pokevla_obs_alignment", "after")) == "before",
            instances=tuple(instances) if instances is not None else None,
            target_instances=tuple(targets) if targets is not None else None,
            collection=_json_attr(data, "pokevla_collection", path),
            demo_names=tuple(names),
        )


def read_demos(header: DemoFile) -> Iterator[Demo]:
    """Yield the episodes of a file, one in memory at a time. Raises DataError naming file, demo and key."""
    with open_hdf5(header.path) as file:
        data: Any = file["data"]
        for name in header.demo_names:
            yield _read_demo(header, data[name], name)


def _read_demo(header: DemoFile, group: Any, name: str) -> Demo:
    where = f"{header.path}: data/{name}"
    actions = _array(group, "actions", where, (None, LIBERO.action_width)).astype(np.float64)
    length = len(actions)
    executed = actions
    if "executed_actions" in group:
        executed = _array(group, "executed_actions", where, (length, LIBERO.action_width)).astype(np.float64)
    position, axis_angle, fingers = (field.size for field in LIBERO.proprio)
    ee_states = _array(group, "obs/ee_states", where, (length, position + axis_angle))
    gripper = _array(group, "obs/gripper_states", where, (length, fingers))
    proprio = np.concatenate([ee_states, gripper], axis=1).astype(np.float32)
    upright = (slice(None), slice(None, None, -1), slice(None, None, -1))  # rotate by 180 degrees, here only
    images = {
        view: _array(group, f"obs/{camera}_rgb", where, (length, None, None, 3), np.uint8)[upright]
        for view, camera in CAMERAS.items()
    }
    masks = None
    if all(f"obs/{camera}_mask" in group for camera in CAMERAS.values()):
        masks = {
            view: _array(group, f"obs/{camera}_mask", where, (length, *images[view].shape[1:3]), np.uint8)[upright]
            for view, camera in CAMERAS.items()
        }
    rendered = np.ones(length, dtype=bool)
    if "obs/rendered" in group:
        rendered = _array(group, "obs/rendered", where, (length,)).astype(bool)
    shift = group.attrs.get("target_shift")
    index = group.attrs.get("init_state_index")
    demo = Demo(
        name=name,
        actions=actions,
        executed_actions=executed,
        proprio=proprio,
        images=images,
        masks=masks,
        rendered=rendered,
        split=_text(group.attrs["split"]) if "split" in group.attrs else None,
        init_state_index=int(index) if index is not None else None,
        target_shift=(float(shift[0]), float(shift[1])) if shift is not None else None,
    )
    return demo if header.aligned_before else _shift_to_before(demo)


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


def _array(group: Any, key: str, where: str, shape: tuple[int | None, ...], dtype: type | None = None) -> np.ndarray:
    """An HDF5 dataset of the expected shape (None: any). Raises DataError naming file, demo and key otherwise."""
    if key not in group:
        raise DataError(f"{where}/{key} is missing.", REMEDY)
    try:
        values = np.asarray(group[key][()])
    except (OSError, RuntimeError) as error:
        raise DataError(f"{where}/{key} cannot be read: the file is damaged ({error}).", REMEDY) from error
    fits = values.ndim == len(shape) and all(e in (None, s) for e, s in zip(shape, values.shape, strict=True))
    if not fits or (dtype is not None and values.dtype != dtype):
        raise DataError(f"{where}/{key} has shape {values.shape} and type {values.dtype}, expected {shape}.", REMEDY)
    return values


def _text(value: Any) -> str:
    """A string attribute, stored as bytes or text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _json_attr(group: Any, key: str, path: Path) -> Any:
    """A JSON attribute of `data`, or None if the file has none. Raises DataError if it is not JSON."""
    if key not in group.attrs:
        return None
    try:
        return json.loads(_text(group.attrs[key]))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: attribute `{key}` of data is not JSON.", REMEDY) from error


def _instruction(group: Any, path: Path) -> str:
    """The task instruction. Published files store it as a string or as a list of characters, sometimes in quotes."""
    info = _json_attr(group, "problem_info", path)
    if not isinstance(info, dict) or "language_instruction" not in info:
        raise DataError(f"{path}: attribute `problem_info` of data lacks `language_instruction`.", REMEDY)
    return "".join(info["language_instruction"]).strip().strip('"')
