"""The one way from recordings to a dataset: parts made by any number of processes, put together in order.

The bytes of the dataset depend on the recordings and the settings, not on the number of processes or on interruptions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

import pokevla
from pokevla.data.conversion.unfinished import begun_folder, forget
from pokevla.data.conversion.workers import run_parts
from pokevla.data.dataset import refuse_output
from pokevla.data.recordings.episode import Source
from pokevla.data.recordings.faults import Fault, refuse_code_names
from pokevla.data.recordings.making import EpisodeWork, PartSettings
from pokevla.data.recordings.parts import NAMES, Part, read_part, usable_parts
from pokevla.data.recordings.report import CHECKS_NAME, Report
from pokevla.data.sources.aspect import Aspect
from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.sources.images import JPEG_QUALITY
from pokevla.data.sources.provenance import made_by
from pokevla.data.sources.skips import Skips
from pokevla.data.statistics import compute_statistics
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.errors import DataError, UsageError
from pokevla.recipe.checking.recorded import RECORDED, Recorded
from pokevla.telemetry.code_version import code_commit

OnFault = Literal["stop", "skip"]
EPISODE_TIMEOUT_S = 1800.0
_REPAIR = "Repair it, or pass --on-fault skip."
MAX_KEY = 40
"""Longest name of a source in keys, in characters."""


@dataclass(frozen=True)
class RecordingSettings:
    """Options of every conversion of recordings."""

    out: Path
    image_size: int = 256
    """Side of the stored images in pixels."""
    aspect: Aspect = "stretch"
    jpeg_quality: int = JPEG_QUALITY
    shard_samples: int = 256
    val_fraction: float = 0.0
    """Share of the episodes, taken from the end, for the split `val`, where the source names no split."""
    instruction: str = ""
    """Instruction of episodes without one."""
    on_fault: OnFault = "stop"
    """What an episode that cannot be used does to the conversion."""
    max_skipped: float = 0.5
    """Largest share of the episodes that `skip` may leave out."""
    workers: int = 0
    """Processes; 0: this one, without protection from crashes of decoders."""
    episode_timeout_s: float = EPISODE_TIMEOUT_S
    overwrite: bool = False
    refuse: tuple[str, ...] = ()
    """Codes of what is otherwise only reported, for which an episode is left out too."""
    command: str = "convert"
    """Command that `made_by` of dataset.json names."""

    @property
    def of_parts(self) -> PartSettings:
        """What a single episode depends on."""
        return PartSettings(self.image_size, self.aspect, self.jpeg_quality, self.instruction, self.refuse)


def convert_recordings(
    source: Source,
    settings: RecordingSettings,
    on_episode: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Path:
    """Convert recordings and return the dataset directory.

    Calls `on_episode(done, total)` after each episode, and `on_note` with a line for everything noticed. A conversion
    that was killed goes on after its finished episodes.

    Raises:
        UsageError: `refuse` names an unknown code.
        Fault: an episode cannot be used (`on_fault` stop). Another DataError: too many cannot be used, or writing
            failed. Nothing is left under the final name.
        EnvironmentSetupError: the processes do not start, or a part cannot be written.
    """
    refuse_code_names(settings.refuse)
    refuse_output(settings.out, (), overwrite=settings.overwrite)
    report = Report(source.num_episodes)
    with DatasetWriter(
        settings.out,
        group=key_name(source.name),
        samples=SAMPLE_SCHEMA,
        episodes=EPISODE_SCHEMA,
        embodiment=source.embodiment,
        shard_samples=settings.shard_samples,
        overwrite=settings.overwrite,
    ) as writer:
        folder = begun_folder(settings.out, _identity(source, settings), NAMES)
        assembly = _Assembly(source, settings, writer, report)
        for done, part in enumerate(_parts(source, settings, folder), start=1):
            assembly.add(done - 1, part)
            if on_episode is not None:
                on_episode(done, source.num_episodes)
        root = assembly.finish()
    forget(folder, NAMES)
    if on_note is not None:
        for note in report.notes():
            on_note(note)
    return root


def key_name(name: str) -> str:
    """A name as the prefix of keys and shards."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")[:MAX_KEY] or "recordings"


def _identity(source: Source, settings: RecordingSettings) -> dict[str, Any]:
    return {
        "source": source.identity(),
        "embodiment": source.embodiment.to_dict(),
        "settings": vars(settings.of_parts),
        "pokevla": pokevla.__version__,
        "code": code_commit(),
    }


def prepare_slice(
    source: Source,
    settings: RecordingSettings,
    index: int,
    count: int,
    on_episode: Callable[[int, int], None] | None = None,
) -> int:
    """Convert every `count`-th episode, from number `index` on, without putting the dataset together; returns how many
    there are. Tasks of a job array do this side by side; `convert_recordings` afterwards finds their work done.

    Raises:
        UsageError: there is no such slice.
        DataError: finished episodes were converted with other options, or writing failed.
    """
    if not 0 <= index < count:
        raise UsageError(f"--slice {index}/{count}: there is none.", f"Slices are 0/{count} to {count - 1}/{count}.")
    refuse_code_names(settings.refuse)
    refuse_output(settings.out, (), overwrite=settings.overwrite)
    folder = begun_folder(settings.out, _identity(source, settings), NAMES, shared=True)
    numbers = range(index, source.num_episodes, count)
    for done, _ in enumerate(_made(source, settings, folder, numbers), start=1):
        if on_episode is not None:
            on_episode(done, len(numbers))
    return len(numbers)


def _parts(source: Source, settings: RecordingSettings, folder: Path) -> Iterator[Part]:
    """The parts in the order of the episodes; what is not there yet is made."""
    for number in _made(source, settings, folder, range(source.num_episodes)):
        yield read_part(folder, number)


def _made(source: Source, settings: RecordingSettings, folder: Path, numbers: range) -> Iterator[int]:
    """Each of the numbers, in order, once its part is there."""
    done = usable_parts(folder, ((number, source.episode_identity(number)) for number in numbers))
    absent = [number for number in numbers if number not in done]
    work = EpisodeWork(source, settings.of_parts, folder)
    making = run_parts(work, absent, settings.workers, settings.episode_timeout_s)
    with closing(making):
        for number in numbers:
            while number not in done:
                done.add(next(making))
            yield number


class _Assembly:
    """Puts parts together to a dataset, in their order."""

    def __init__(self, source: Source, settings: RecordingSettings, writer: DatasetWriter, report: Report) -> None:
        self._source, self._settings, self._writer, self._report = source, settings, writer, report
        share = settings.max_skipped if settings.on_fault == "skip" else 0.0
        self._skips = Skips(share, source.num_episodes)
        self._prefix = key_name(source.name)
        self._tasks: dict[str, int] = {}
        self._first_sizes: dict[str, list[int]] = {}
        self._training: list[tuple[str, np.ndarray, np.ndarray]] = []

    def add(self, number: int, part: Part) -> None:
        """Append an episode, or leave it out."""
        name, header = self._source.episode_name(number), part.header
        self._report.add(name, header.findings, refused=header.refused)
        if header.refused:
            last = header.findings[-1]
            remedy = f"{header.remedy} Or pass --on-fault skip." if header.remedy else _REPAIR
            self._skips.add(name, Fault(last.code, last.message, remedy))
            return
        for view, size in header.sizes.items():
            first = self._first_sizes.setdefault(view, size)
            if size != first:
                self._report.notice(name, "other_resolution", f"{name}: {view} has {size}, others {first} pixels.")
        split = header.split or self._default_split(number)
        self._write(part, split)
        if split == "train":
            self._training.append((name, part.actions, part.proprio))

    def finish(self) -> Path:
        """Write tables, statistics and report; returns the dataset directory."""
        if not self._training:
            raise DataError(
                f"{self._settings.out}: no episode of {self._source.name} is left for the split `train`.",
                "Look at the reasons above." if self._skips.reasons else "Lower --val-fraction.",
            )
        statistics = compute_statistics(
            [actions for _, actions, _ in self._training],
            [proprio for _, _, proprio in self._training],
            self._source.embodiment,
        )
        self._report.weigh_outside(self._training, statistics)
        self._writer.add_file(CHECKS_NAME, self._report.to_json())
        return self._writer.finish(
            {
                "statistics": statistics.to_dict(),
                "sources": self._source.provenance(),
                RECORDED: Recorded(image_size=(self._settings.image_size,)).to_dict(),
                "checks": self._report.counts(),
                **self._skips.info(),
                "made_by": self._made_by(),
            }
        )

    def _made_by(self) -> dict[str, Any]:
        settings = self._settings
        return made_by(
            settings.command,
            **vars(settings.of_parts),
            shard_samples=settings.shard_samples,
            val_fraction=settings.val_fraction,
            on_fault=settings.on_fault,
        )

    def _default_split(self, number: int) -> str:
        count = self._source.num_episodes
        return "val" if number >= count - round(count * self._settings.val_fraction) else "train"

    def _write(self, part: Part, split: str) -> None:
        robot, instruction = self._source.embodiment, part.header.instruction
        task_index = self._tasks.setdefault(instruction, len(self._tasks))
        episode = self._report.num_kept - 1
        shared = {
            "episode": episode,
            "split": split,
            "suite": self._prefix,
            "task": instruction,
            "task_index": task_index,
            "instruction": instruction,
        }
        for frame, jpegs in enumerate(part.frames()):
            key = f"{self._prefix}-t{task_index:02d}-e{episode:04d}-f{frame:04d}"
            row = {**shared, "frame": frame, "proprio": part.proprio[frame].tolist()}
            members = {f"{view}.jpg": jpeg for view, jpeg in zip(robot.views, jpegs, strict=True)}
            members["json"] = encode_json({"key": key, **row, "action": part.actions[frame].tolist()})
            self._writer.add_sample(key, members, row)
        self._writer.add_episode(
            {
                **shared,
                "file_instruction": instruction,
                "length": len(part.actions),
                "init_state_index": None,
                "target_shift": None,
                "actions": part.actions.tolist(),
                "executed_actions": part.actions.tolist(),
                "proprio": part.proprio.tolist(),
            }
        )
