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

import h5py
import numpy as np

from pokevla.errors import DataError, UsageError
from pokevla.simulation.recordings.hdf5 import new_hdf5
from pokevla.simulation.recordings.mask_replay import EpisodeMasks, EpisodeReplay, figures
from pokevla.simulation.recordings.stored_episodes import CAMERAS, DemoSource, open_episode
from pokevla.simulation.suites import get_task, load_init_states
from pokevla.simulation.workers import run_ordered

Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class MaskReport:
    """What became of one file: episodes with masks, and those left out, each with what is wrong with it."""

    source: Path
    path: Path
    kept: int
    left_out: dict[str, str]
    found: bool = False
    """Whether it was there already, finished by an earlier run from the same source."""


def add_masks(
    files: Sequence[DemoSource], workers: int, *, overwrite: bool = False, on_progress: Progress | None = None
) -> list[MaskReport]:
    """Write a copy of every file, in the same layout, with instance masks of both views added.

    `on_progress(done, left_out, total)` is called after each episode. An episode whose states do not fit its
    pictures is left out and reported; where that is true of more than half of a file, the file is refused.

    Raises UsageError for targets that are sources, or exist (without `overwrite`) and were not made from the same
    source, DataError naming file and demo for what cannot be replayed (states of another model before anything is
    drawn), DiskFullError if there is no room. Finished files stay, and the same call goes on after them; of an
    unfinished one nothing is left.
    """
    _check_targets(files)
    reports = {} if overwrite else {file.target: found for file in files if (found := _finished(file)) is not None}
    left = [file for file in files if file.target not in reports]
    for file in left:
        _check_states(file)
    total = sum(len(file.demo_names) for file in left)
    done = left_out = 0

    def listen(fits: bool) -> None:
        nonlocal done, left_out
        done, left_out = done + 1, left_out + (not fits)
        if on_progress is not None:
            on_progress(done, left_out, total)

    if left:
        with closing(run_ordered(EpisodeReplay, (tuple(left),), total, workers)) as results:
            reports |= {file.target: write_with_masks(file, results, listen) for file in left}
    return [reports[file.target] for file in files]


def _check_targets(files: Sequence[DemoSource]) -> None:
    targets = [file.target.resolve() for file in files]
    for file, target in zip(files, targets, strict=True):
        if targets.count(target) > 1:
            raise UsageError(f"{file.source} is not the only file for {file.target}.", "Give one folder at a time.")
        if target in [other.source.resolve() for other in files]:
            raise UsageError(f"{file.target} is a source itself.", "Give another OUT: sources are not changed.")


def _finished(file: DemoSource) -> MaskReport | None:
    """The report of an earlier run that made the target from the same source; None where there is no target."""
    if not file.target.exists():
        return None
    try:
        with h5py.File(file.target, "r") as target:
            found = json.loads(target["data"].attrs.get("pokevla_masks", "{}"))
    except (OSError, KeyError):  # no HDF5, or not of LIBERO's layout: nothing of ours
        found = {}
    if found.get("source_sha256") != _sha256(file.source):
        raise UsageError(
            f"{file.target} exists already, and was not made from this {file.source.name}.",
            "Give another OUT, or --overwrite to replace it.",
        )
    return MaskReport(file.source, file.target, len(found["fit"]) - len(found["left_out"]), found["left_out"], True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_states(file: DemoSource) -> None:
    """Refuse what is not of this task's model, or has masks, before a simulator is started."""
    width = load_init_states(get_task(file.suite, file.task_index)).shape[1]
    for demo in file.demo_names:
        with open_episode(file, demo) as episode:
            where = f"{file.source}: data/{demo}"
            if episode.states.shape[1] != width:
                raise DataError(
                    f"{where}/states has {episode.states.shape[1]} numbers a row, the model of {file.suite} task "
                    f"{file.task_index} has {width}.",
                    "It was stored with another task or another version of LIBERO.",
                )
            if not np.isfinite(episode.states).all():
                raise DataError(f"{where}/states holds numbers that are not finite.", "Download the file again.")
            if episode.has_masks:
                raise DataError(f"{where} has masks already.", "It can be converted as it is.")


def write_with_masks(file: DemoSource, results: Iterator[EpisodeMasks], listen: Callable[[bool], None]) -> MaskReport:
    """Copy one file with the masks of its episodes, which come from `results` in order; `listen(fits)` after each.

    Raises DataError, leaving nothing, where more than half of the episodes do not fit; DiskFullError without room.
    """
    left_out: dict[str, str] = {}
    fits: dict[str, dict[str, float | None]] = {}
    rows = 0
    with new_hdf5(file.target) as target, h5py.File(file.source, "r") as source:
        stored: Any = source["data"]
        data = target.create_group("data")
        data.attrs.update(stored.attrs)
        for demo in file.demo_names:
            episode = next(results)
            complaint = episode.fit.complaint()
            if complaint is None:
                source.copy(stored[demo], data, demo)
                rows += _add_masks(data[demo], episode)
            else:
                left_out[demo] = complaint
            fits[demo] = figures(episode.fit)
            data.attrs["instances"] = json.dumps(episode.instances)
            data.attrs["target_instances"] = json.dumps(episode.target_instances)
            listen(complaint is None)
        _refuse_mostly_unfit(file, left_out)
        data.attrs["num_demos"], data.attrs["total"] = len(fits) - len(left_out), rows
        made = {"source_sha256": _sha256(file.source), "mujoco": version("mujoco"), "left_out": left_out, "fit": fits}
        data.attrs["pokevla_masks"] = json.dumps(made)
    return MaskReport(file.source, file.target, len(fits) - len(left_out), left_out)


def _add_masks(group: Any, episode: EpisodeMasks) -> int:
    masks = episode.unpack()
    for camera, values in zip(CAMERAS, masks, strict=True):
        chunks = (1, *values.shape[1:])  # one chunk a picture, as in our own files
        group["obs"].create_dataset(
            f"{camera}_mask", data=values, compression="gzip", compression_opts=1, chunks=chunks
        )
    return masks.shape[1]


def _refuse_mostly_unfit(file: DemoSource, left_out: dict[str, str]) -> None:
    """A few episodes whose playback went astray are the publisher's; more than half are another task or model."""
    if 2 * len(left_out) <= len(file.demo_names):
        return
    demo, complaint = next(iter(left_out.items()))
    raise DataError(
        f"{file.source}: data/{demo}: {complaint}; so it is with {len(left_out)} of {len(file.demo_names)} episodes.",
        f"Check that the file is of {file.suite} task {file.task_index}, and see docs/simulation.md (Masks).",
    )
