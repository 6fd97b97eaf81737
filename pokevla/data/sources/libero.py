"""`pokevla data convert libero`: converts LIBERO demonstrations to a robot dataset, one episode in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pokevla.data.dataset import refuse_output
from pokevla.data.sources.alignment import Alignment
from pokevla.data.sources.aspect import Aspect, Squares
from pokevla.data.sources.demonstrations import DATA, SUFFIX, Demo, DemoFile, describe, image_sizes, read_demos
from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.sources.images import JPEG_QUALITY, encode_jpeg, encode_mask
from pokevla.data.sources.provenance import made_by, source_entry
from pokevla.data.sources.skips import Skips
from pokevla.data.sources.tasks import Instructions, choose_instruction
from pokevla.data.statistics import compute_statistics
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.embodiment.libero import LIBERO
from pokevla.embodiment.noops import moving_frames
from pokevla.errors import DataError
from pokevla.files.finding import find_files
from pokevla.files.foreign.hdf5 import hdf5_reader
from pokevla.files.foreign.process import READ_TIMEOUT_S, ForeignReader
from pokevla.files.labels import name_problem
from pokevla.recipe.checking.recorded import RECORDED, Recorded


@dataclass(frozen=True)
class LiberoSettings:
    """Options of `convert libero`."""

    source: Path
    out: Path
    shard_samples: int = 256
    jpeg_quality: int = JPEG_QUALITY
    val_fraction: float = 0.0
    """Fraction of each file's episodes, taken from the end, for the split `val`, if the file does not define splits."""
    overwrite: bool = False
    noops: Literal["auto", "drop", "keep"] = "auto"
    """Frames without motion: `auto` drops them in published files (OpenVLA-OFT's rule) and keeps them in ours. The
    scripted expert pauses only while the gripper closes or opens (measured: 13 of 103 frames of an episode). Without
    these frames a policy learns to lift before it has grasped."""
    instructions: Instructions = "task"
    """Wording of the instructions: `task` takes it from the names of LIBERO's tasks, `file` from the files. An unknown
    task has only the file's."""
    alignment: Alignment | None = None
    """Whether observations were made before or after the action of their row, for files that do not tell."""
    aspect: Aspect = "stretch"
    """How images that are not square become square (`aspect.py`)."""
    max_skipped: float = 0.0
    """Largest share of the episodes that may be left out because they cannot be read or hold bad numbers."""
    read_timeout_s: float = READ_TIMEOUT_S
    """How long one read of a source may take before the file counts as damaged."""


def target_mask(instances: np.ndarray, header: DemoFile) -> np.ndarray:
    """(..., H, W) bool: pixels of the task's target and reference objects. Raises DataError for a target that is
    not among the instances."""
    if header.instances is None or header.target_instances is None:
        raise DataError(f"{header.path} has masks, but no attributes `instances` and `target_instances`.")
    unknown = sorted(set(header.target_instances) - set(header.instances))
    if unknown:
        raise DataError(f"{header.path}: target instances {unknown} are not among its instances.")
    values = [header.instances.index(name) + 1 for name in header.target_instances]
    return np.isin(instances, values)


def convert_libero(
    settings: LiberoSettings,
    on_episode: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Path:
    """Convert a file or folder of LIBERO demonstrations and return the dataset directory.

    Calls `on_episode(done, total)` after each episode, and `on_note` with a line for everything passed over. Raises
    DataError naming file, demo, key and row for damaged input, bad numbers or another layout, and DiskFullError if the
    disk is full. Neither leaves anything under the final name. Also raises what `refuse_output` raises.
    """
    found = find_files(settings.source, SUFFIX)
    refuse_output(settings.out, [settings.source, *found.files], overwrite=settings.overwrite)
    with hdf5_reader(settings.read_timeout_s) as reader:
        headers = [describe(path, reader, settings.alignment) for path in found.files]
        skips = Skips(settings.max_skipped, sum(len(header.demo_names) for header in headers))
        root = _convert(settings, headers, reader, skips, on_episode)
    if on_note is not None:
        for note in [*found.notes(), *skips.notes()]:
            on_note(note)
    return root


def _convert(
    settings: LiberoSettings,
    headers: Sequence[DemoFile],
    reader: ForeignReader,
    skips: Skips,
    on_episode: Callable[[int, int], None] | None,
) -> Path:
    actions: list[np.ndarray] = []
    proprio: list[np.ndarray] = []
    sources: list[dict[str, Any]] = []
    dropped = episode = 0
    with_masks: bool | None = None
    wordings = [choose_instruction(header, settings.instructions) for header in headers]
    suites = sorted({header.suite for header in headers})
    sizes = {size for header in headers for size in image_sizes(header, reader)}
    squares = Squares.of(sizes, settings.aspect)
    with DatasetWriter(
        settings.out,
        group=suites[0] if len(suites) == 1 and name_problem(suites[0]) is None else "libero",
        samples=SAMPLE_SCHEMA,
        episodes=EPISODE_SCHEMA,
        embodiment=LIBERO,
        shard_samples=settings.shard_samples,
        overwrite=settings.overwrite,
    ) as writer:
        for number, (header, (instruction, _)) in enumerate(zip(headers, wordings, strict=True)):
            init_states: list[int] = []
            with closing(_moving_demos(settings, header, reader, skips)) as demos:
                for place, demo, keep in demos:
                    with_masks = _check_masks(header, demo, with_masks)
                    dropped += int((~keep).sum())
                    split = demo.split or _default_split(place, len(header.demo_names), settings.val_fraction)
                    square = squares.episode(demo)
                    identity = _Identity(header, number, instruction, episode, split)
                    _write_episode(writer, identity, square, keep, settings.jpeg_quality)
                    if split == "train":
                        actions.append(demo.actions[keep])
                        proprio.append(demo.proprio[keep])
                    if demo.init_state_index is not None:
                        init_states.append(demo.init_state_index)
                    episode += 1
                    if on_episode is not None:
                        on_episode(episode, skips.total - len(skips.reasons))
            sources.append(_source(header, init_states))
        recorded = Recorded(
            image_size=(squares.side or max(max(size) for size in sizes),) if sizes else None,
            fast_rendering=tuple(sorted({header.is_fast_rendered for header in headers})),
            instructions=tuple(sorted({source for _, source in wordings})),
        )
        return writer.finish(
            {
                "statistics": compute_statistics(actions, proprio, LIBERO).to_dict(),
                "sources": sources,
                "num_noops_dropped": dropped,
                RECORDED: recorded.to_dict(),
                **skips.info(),
                "made_by": _made_by(settings),
            }
        )


def _made_by(settings: LiberoSettings) -> dict[str, Any]:
    return made_by(
        "convert libero",
        shard_samples=settings.shard_samples,
        jpeg_quality=settings.jpeg_quality,
        val_fraction=settings.val_fraction,
        noops=settings.noops,
        instructions=settings.instructions,
        alignment=settings.alignment,
        aspect=settings.aspect,
    )


def _check_masks(header: DemoFile, demo: Demo, with_masks: bool | None) -> bool:
    """Whether the dataset has masks. Raises DataError for an episode unlike those before it."""
    if with_masks not in (None, demo.masks is not None):
        raise DataError(
            f"{header.path}: {DATA}/{demo.name} {'has' if demo.masks else 'lacks'} masks, unlike the others.",
            "Convert files with and without masks separately.",
        )
    return demo.masks is not None


def _moving_demos(
    settings: LiberoSettings, header: DemoFile, reader: ForeignReader, skips: Skips
) -> Generator[tuple[int, Demo, np.ndarray]]:
    """Yield the episodes of a file with their place in it and (T,) bool, the frames that go into the dataset."""
    drop = settings.noops == "drop" or (settings.noops == "auto" and header.collection is None)
    with closing(read_demos(header, reader, skips)) as demos:
        for place, demo in demos:
            keep = moving_frames(demo.actions) if drop else np.ones(len(demo.actions), dtype=bool)
            if (keep & demo.rendered).any():
                yield place, demo, keep
                continue
            episode = f"{DATA}/{demo.name}"
            lost = DataError(
                f"{header.path}: {episode} has no image with motion: all its frames would be dropped.",
                "Pass --noops keep, or leave it out with --max-skipped.",
            )
            skips.add(f"{header.path.name}: {episode}", lost)


def _default_split(place: int, count: int, val_fraction: float) -> str:
    """Split of episode `place` of `count` in a file that does not define splits. The last episodes are `val`."""
    return "val" if place >= count - round(count * val_fraction) else "train"


def _source(header: DemoFile, init_states: list[int]) -> dict[str, Any]:
    """Entry of one input file in dataset.json. The initial states show that no test trial is among the data."""
    return source_entry(
        header.path,
        suite=header.suite,
        task=header.task,
        episodes=len(header.demo_names),
        alignment=header.alignment,
        file_instruction=header.file_instruction,
        init_states=[min(init_states), max(init_states) + 1] if init_states else None,
        collection=header.collection,
    )


@dataclass(frozen=True)
class _Identity:
    """Which episode of which file, and what its rows say about it."""

    header: DemoFile
    file_number: int
    instruction: str
    episode: int
    split: str

    @property
    def task_index(self) -> int:
        return self.header.task_index if self.header.task_index is not None else self.file_number

    def shared(self) -> dict[str, Any]:
        """Columns of the episode and of all its samples."""
        return {
            "episode": self.episode,
            "split": self.split,
            "suite": self.header.suite,
            "task": self.header.task,
            "task_index": self.task_index,
            "instruction": self.instruction,
        }


def _write_episode(writer: DatasetWriter, identity: _Identity, demo: Demo, keep: np.ndarray, quality: int) -> None:
    """Write the row of one episode, and a sample for each kept frame that was rendered."""
    header, shared = identity.header, identity.shared()
    kept = np.flatnonzero(keep)
    for frame, t in enumerate(kept):
        if not demo.rendered[t]:
            continue
        key = f"{header.suite}-t{identity.task_index:02d}-e{identity.episode:04d}-f{frame:04d}"
        row = {**shared, "frame": frame, "proprio": demo.proprio[t].tolist()}
        members = {f"{view}.jpg": encode_jpeg(demo.images[view][t], quality) for view in LIBERO.views}
        if demo.masks is not None:
            for view in LIBERO.views:
                members[f"{view}.mask.png"] = encode_mask(target_mask(demo.masks[view][t], header))
        members["json"] = encode_json({"key": key, **row, "action": demo.actions[t].tolist()})
        writer.add_sample(key, members, row)
    writer.add_episode(
        {
            **shared,
            "file_instruction": header.file_instruction,
            "length": len(kept),
            "init_state_index": demo.init_state_index,
            "target_shift": list(demo.target_shift) if demo.target_shift is not None else None,
            "actions": demo.actions[kept].tolist(),
            "executed_actions": demo.executed_actions[kept].tolist(),
            "proprio": demo.proprio[kept].tolist(),
        }
    )
