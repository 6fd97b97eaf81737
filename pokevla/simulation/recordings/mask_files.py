"""Copies of demonstration files with masks added: `pokevla data masks`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.errors import DataError, UsageError
from pokevla.files.foreign.hdf5 import Hdf5File, hdf5_reader
from pokevla.files.foreign.process import ForeignReader
from pokevla.files.writing import refuse_second_writer
from pokevla.simulation.recordings.hdf5 import (
    MASKS,
    PACKED,
    copy_attributes,
    copy_group,
    new_hdf5,
    refuse_other_recording,
    set_camera_size,
)
from pokevla.simulation.recordings.mask_replay import EpisodeMasks, EpisodeReplay, figures
from pokevla.simulation.recordings.stored_episodes import DemoSource, open_episode
from pokevla.simulation.recordings.workers import run_ordered
from pokevla.simulation.suites import get_task, load_init_states

Progress = Callable[[int, int, int], None]
MAX_SKIPPED = 0.5
"""Share of the episodes of a file that may be left out. More means another task or model, not a few faulty ones."""


@dataclass(frozen=True)
class MaskReport:
    """Result for one file: episodes with masks, and those left out with the reason."""

    source: Path
    path: Path
    kept: int
    left_out: dict[str, str]
    is_earlier: bool = False
    """Whether an earlier call has already written the file from the same source."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form. The key of `is_earlier` is `found`."""
        return {"source": str(self.source), "path": str(self.path), "kept": self.kept, "left_out": self.left_out,
                "found": self.is_earlier}  # fmt: skip


def add_masks(
    files: Sequence[DemoSource],
    workers: int,
    *,
    image_size: int | None = None,
    overwrite: bool = False,
    max_skipped: float = MAX_SKIPPED,
    on_progress: Progress | None = None,
) -> list[MaskReport]:
    """Write a copy of every file, in the same layout, with instance masks of both views added.

    `image_size` in pixels: draw the pictures anew as well, in default rendering. None: masks only, of the stored size.
    `on_progress(done, left_out, total)` is called after each episode. An episode whose states do not match its
    images is left out and reported; a file with a share above `max_skipped` of such episodes is refused. Finished files
    stay, and the same call continues after them; nothing is left of an unfinished one.

    Raises:
        UsageError: a target is a source, or exists (without `overwrite`) and was not made from the same source.
        DataError: a target exists and was not written by us, or another process is writing it.
        DataError: an episode cannot be replayed; names file and demo. States of another model are detected first.
        DiskFullError: disk full.
    """
    check_targets(files, MASKS, overwrite=overwrite)
    with hdf5_reader() as reader:
        earlier = [] if overwrite else [_finished(file, image_size, reader) for file in files]
        reports = {report.path: report for report in earlier if report is not None}
        left = [file for file in files if file.target not in reports]
        for file in left:
            refuse_other_states(file, reader)
            if image_size is None:
                _refuse_masks(file, reader)
    total = sum(len(file.demo_names) for file in left)
    done = left_out = 0

    def listen(fits: bool) -> None:
        nonlocal done, left_out
        done, left_out = done + 1, left_out + (not fits)
        if on_progress is not None:
            on_progress(done, left_out, total)

    if left:
        with closing(run_ordered(EpisodeReplay, (tuple(left), image_size), total, workers)) as results:
            reports |= {file.target: write_with_masks(file, results, listen, max_skipped, image_size) for file in left}
    return [reports[file.target] for file in files]


def check_targets(files: Sequence[DemoSource], attribute: str, *, overwrite: bool) -> None:
    """Refuse targets that cannot be written, before any work. `attribute` marks the files of this command.

    Raises:
        UsageError: a target is a source, or that of two sources.
        DataError: a target is not ours, or another process is writing it.
    """
    targets = [file.target.resolve() for file in files]
    for file, target in zip(files, targets, strict=True):
        if targets.count(target) > 1:
            raise UsageError(f"{file.source} is not the only file for {file.target}.", "Give one folder at a time.")
        if target in [other.source.resolve() for other in files]:
            raise UsageError(f"{file.target} is a source itself.", "Give another OUT: sources are not changed.")
        refuse_second_writer(file.target)
        if overwrite and file.target.exists():
            refuse_other_recording(file.target, attribute)


def made_from(
    file: DemoSource, attribute: str, identity: dict[str, Any], reader: ForeignReader
) -> dict[str, Any] | None:
    """What an earlier call wrote into `attribute` of the target; None if there is no target.

    Raises:
        UsageError: the target was made from another source or with other settings than `identity`.
    """
    if not file.target.exists():
        return None
    try:
        stored = Hdf5File(file.target, reader).json_attribute("data", attribute)
    except DataError:  # not HDF5 or not in LIBERO's layout, so not written by us
        stored = None
    if not isinstance(stored, dict) or stored.get("source_sha256") != identity["source_sha256"]:
        raise UsageError(
            f"{file.target} exists and was not made from this {file.source.name}.",
            "Give another OUT, or --overwrite to replace it.",
        )
    for name, value in identity.items():
        if stored.get(name) != value:
            raise UsageError(
                f"{file.target} exists and was made with {name} {stored.get(name)}, not {value}.",
                "Give another OUT, or --overwrite to replace it.",
            )
    return stored


def _finished(file: DemoSource, image_size: int | None, reader: ForeignReader) -> MaskReport | None:
    """Report of an earlier call that wrote the target from the same source; None if there is no target."""
    if not file.target.exists():
        return None
    identity = {"source_sha256": sha256_of(file.source), "image_size": image_size}
    stored = made_from(file, MASKS, identity, reader)
    if stored is None:
        return None
    return MaskReport(file.source, file.target, len(stored["fit"]) - len(stored["left_out"]), stored["left_out"], True)


def sha256_of(path: Path) -> str:
    """Checksum of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_other_states(file: DemoSource, reader: ForeignReader) -> None:
    """Refuse states of another model, before a simulator is started. Raises DataError naming file and demo."""
    width = load_init_states(get_task(file.suite, file.task_index)).shape[1]
    for demo in file.demo_names:
        episode = open_episode(file, demo, reader)
        if episode.states.shape[1] != width:
            raise DataError(
                f"{file.source}: data/{demo}/states has {episode.states.shape[1]} numbers a row, the model of "
                f"{file.suite} task {file.task_index} has {width}.",
                "It was stored with another task or another version of LIBERO.",
            )


def _refuse_masks(file: DemoSource, reader: ForeignReader) -> None:
    for demo in file.demo_names:
        if open_episode(file, demo, reader).has_masks:
            raise DataError(
                f"{file.source}: data/{demo} already has masks.",
                "Convert it as it is, or pass --image-size to draw pictures and masks anew.",
            )


def write_with_masks(
    file: DemoSource,
    results: Iterator[EpisodeMasks],
    listen: Callable[[bool], None],
    max_skipped: float = MAX_SKIPPED,
    image_size: int | None = None,
) -> MaskReport:
    """Copy one file with the masks (and pictures, if they were drawn) of its episodes from `results`, in order; calls
    `listen(fits)` after each.

    Raises:
        DataError: more than `max_skipped` of the episodes do not match; nothing is left.
        DiskFullError: disk full; nothing is left.
    """
    left_out: dict[str, str] = {}
    fits: dict[str, dict[str, float | None]] = {}
    rows = 0
    with new_hdf5(file.target, MASKS) as target, hdf5_reader() as reader:
        source = Hdf5File(file.source, reader)
        data = target.create_group("data")
        copy_attributes(source, "data", data)
        for demo in file.demo_names:
            episode = next(results)
            complaint = episode.fit.complaint()
            if complaint is None:
                drawn = episode.images()
                copy_group(source, f"data/{demo}", data.create_group(demo), leave_out=list(drawn))
                rows += _add_pictures(data[demo], drawn)
            else:
                left_out[demo] = complaint
            fits[demo] = figures(episode.fit)
            data.attrs["instances"] = json.dumps(episode.instances)
            data.attrs["target_instances"] = json.dumps(episode.target_instances)
            listen(complaint is None)
        _refuse_mostly_unfit(file, left_out, max_skipped)
        data.attrs["num_demos"], data.attrs["total"] = len(fits) - len(left_out), rows
        made = {"source_sha256": sha256_of(file.source), "mujoco": version("mujoco"), "left_out": left_out, "fit": fits}
        if image_size is not None:
            made |= {"image_size": image_size, "fast_rendering": False}
            set_camera_size(data, image_size)
        data.attrs[MASKS] = json.dumps(made, allow_nan=False)
    return MaskReport(file.source, file.target, len(fits) - len(left_out), left_out)


def _add_pictures(group: Any, drawn: dict[str, np.ndarray]) -> int:
    for name, values in drawn.items():
        chunks = (1, *values.shape[1:])  # one chunk a picture, as in our own files
        group["obs"].create_dataset(name, data=values, chunks=chunks, **PACKED)
    return len(next(iter(drawn.values())))


def _refuse_mostly_unfit(file: DemoSource, left_out: dict[str, str], max_skipped: float) -> None:
    if len(left_out) <= max_skipped * len(file.demo_names):
        return
    demo, complaint = next(iter(left_out.items()))
    raise DataError(
        f"{file.source}: data/{demo}: {complaint}; the same holds for {len(left_out)} of "
        f"{len(file.demo_names)} episodes.",
        f"Check that the file is of {file.suite} task {file.task_index}, and see docs/simulation.md (Masks).",
    )
