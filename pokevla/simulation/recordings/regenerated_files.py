"""Replayed copies of demonstration files: `pokevla data regenerate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pokevla.errors import DataError, SimulationError
from pokevla.files.foreign.hdf5 import Hdf5File, hdf5_reader
from pokevla.files.foreign.process import ForeignReader
from pokevla.simulation.recordings.hdf5 import (
    ALIGNMENT,
    COLLECTION,
    REGENERATION,
    copy_attributes,
    new_hdf5,
    set_camera_size,
)
from pokevla.simulation.recordings.mask_files import check_targets, made_from, refuse_other_states, sha256_of
from pokevla.simulation.recordings.regeneration import (
    SETTLE_STEPS,
    EpisodeRegeneration,
    RegenerationSettings,
    ReplayedEpisode,
    copy_part,
)
from pokevla.simulation.recordings.stored_episodes import DemoSource
from pokevla.simulation.recordings.unfinished import begun_folder, forget
from pokevla.simulation.recordings.workers import run_ordered
from pokevla.telemetry.code_version import code_commit

SUITE_EPISODES = 500
PUBLISHED_EPISODES = {"libero_spatial": 432, "libero_object": 454, "libero_goal": 428, "libero_10": 379}
"""Episodes of 500 that OpenVLA kept (huggingface.co/datasets/openvla/modified_libero_rlds)."""
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class RegenerationReport:
    """Result for one file: episodes kept, their rows, the idle actions dropped from them, and episodes left out."""

    source: Path
    path: Path
    suite: str
    kept: int
    rows: int
    noops: int
    left_out: dict[str, str]
    is_earlier: bool = False
    """Whether an earlier call has already written the file from the same source."""

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "source": str(self.source), "path": str(self.path)}


def regenerate(
    files: Sequence[DemoSource],
    settings: RegenerationSettings,
    workers: int,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> list[RegenerationReport]:
    """Replay every episode of every file and write those that succeed to a new file in the same layout.

    The content does not depend on `workers`. `on_progress(done, left_out, total)` is called after each episode. A
    killed call loses the episodes that were being replayed: the same call goes on after the others.

    Raises:
        UsageError: a target is a source, or exists (without `overwrite`) and was not made in this way.
        DataError: a target was not written by us, or another process is writing it; an episode cannot be read, or is
            not a published one. Names file and demo.
        SimulationError: no episode of a file succeeds.
        DiskFullError: disk full.
    """
    check_targets(files, REGENERATION, overwrite=overwrite)
    reports: dict[Path, RegenerationReport] = {}
    identities: dict[Path, dict[str, Any]] = {}
    with hdf5_reader() as reader:
        for file in files:
            identities[file.target] = {"source_sha256": sha256_of(file.source), **asdict(settings)}
            stored = None if overwrite else made_from(file, REGENERATION, identities[file.target], reader)
            if stored is not None:
                reports[file.target] = _report(file, stored, is_earlier=True)
        left = [file for file in files if file.target not in reports]
        for file in left:
            _refuse_made_by_us(file, reader)
            refuse_other_states(file, reader)
    jobs = [(file, demo, part) for file in left for demo, part in _parts(file, identities[file.target])]
    done = left_out = 0

    def listen(episode: ReplayedEpisode) -> None:
        nonlocal done, left_out
        done, left_out = done + 1, left_out + (episode.complaint is not None)
        if on_progress is not None:
            on_progress(done, left_out, len(jobs))

    if jobs:
        with closing(run_ordered(EpisodeRegeneration, (tuple(jobs), settings), len(jobs), workers)) as results:
            for file in left:
                reports[file.target] = _write(file, settings, identities[file.target], results, listen)
    return [reports[file.target] for file in files]


def suite_counts(reports: Sequence[RegenerationReport]) -> dict[str, tuple[int, int | None]]:
    """Suite -> (episodes kept, those that OpenVLA kept) of every suite that was replayed as a whole."""
    counts: dict[str, tuple[int, int | None]] = {}
    for suite in dict.fromkeys(report.suite for report in reports):
        of_suite = [report for report in reports if report.suite == suite]
        if sum(report.kept + len(report.left_out) for report in of_suite) == SUITE_EPISODES:
            counts[suite] = (sum(report.kept for report in of_suite), PUBLISHED_EPISODES.get(suite))
    return counts


def _parts(file: DemoSource, identity: dict[str, Any]) -> list[tuple[str, Path]]:
    folder = begun_folder(file.target, identity)
    return [(demo, folder / f"{demo}.part") for demo in file.demo_names]


def _refuse_made_by_us(file: DemoSource, reader: ForeignReader) -> None:
    names = Hdf5File(file.source, reader).attributes("data")
    if COLLECTION in names:
        raise DataError(
            f"{file.source} was recorded by `pokevla data demos`: its expert reacts to what happens, so that a replay "
            "of its actions shows something else.",
            "Record it again with another --image-size.",
        )
    if REGENERATION in names:
        raise DataError(f"{file.source} is already regenerated.", "Give the published file.")


def _write(
    file: DemoSource,
    settings: RegenerationSettings,
    identity: dict[str, Any],
    results: Iterator[ReplayedEpisode],
    listen: Callable[[ReplayedEpisode], None],
) -> RegenerationReport:
    """Collect the episodes of one file, in order."""
    left_out: dict[str, str] = {}
    kept = rows = noops = 0
    with new_hdf5(file.target, REGENERATION) as target, hdf5_reader() as reader:
        data = target.create_group("data")
        copy_attributes(Hdf5File(file.source, reader), "data", data)
        for demo, part in _parts(file, identity):
            episode = next(results)
            if episode.complaint is None:
                copy_part(part, data, demo)
                kept, rows, noops = kept + 1, rows + episode.rows, noops + episode.noops
            else:
                left_out[demo] = episode.complaint
            if settings.masks:
                data.attrs["instances"] = json.dumps(episode.instances)
                data.attrs["target_instances"] = json.dumps(episode.target_instances)
            listen(episode)
        if not kept:
            forget(file.target)
            demo, complaint = next(iter(left_out.items()))
            raise SimulationError(
                f"{file.source}: no episode of {len(left_out)} succeeds when it is replayed; data/{demo}: {complaint}.",
                f"Check that the file is of {file.suite} task {file.task_index}, and see docs/simulation.md.",
            )
        data.attrs["num_demos"], data.attrs["total"], data.attrs[ALIGNMENT] = kept, rows, "before"
        set_camera_size(data, settings.image_size)
        made = {
            **identity,
            "settle_steps": SETTLE_STEPS,
            "fixtures": "model_file",
            "episodes": len(file.demo_names),
            "rows": rows,
            "noops_dropped": noops,
            "left_out": left_out,
            "mujoco": version("mujoco"),
            "robosuite": version("robosuite"),
            "commit": code_commit() or "unknown",
        }
        data.attrs[REGENERATION] = json.dumps(made)
    forget(file.target)
    return _report(file, made)


def _report(file: DemoSource, made: dict[str, Any], *, is_earlier: bool = False) -> RegenerationReport:
    left_out = made["left_out"]
    return RegenerationReport(
        source=file.source,
        path=file.target,
        suite=file.suite,
        kept=made["episodes"] - len(left_out),
        rows=made["rows"],
        noops=made["noops_dropped"],
        left_out=left_out,
        is_earlier=is_earlier,
    )
