"""Episodes of an RLDS dataset, and what is taken of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pokevla.data.recordings.episode import Episode, ReadEpisode
from pokevla.data.recordings.faults import Fault
from pokevla.data.recordings.fields import (
    FieldSource,
    Options,
    Selection,
    build_embodiment,
    choose_sources,
    gather,
    parse_gripper,
    plain_name,
    refuse_control_mode,
    resolve_fields,
)
from pokevla.data.recordings.rlds.example import Values, parse_example
from pokevla.data.recordings.rlds.metadata import INFO, RldsMetadata
from pokevla.data.recordings.rlds.tfrecord import Record, import_crc32c, index_records, read_record
from pokevla.data.sources.provenance import source_entry
from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import BASE, LIBERO, WRIST
from pokevla.errors import UsageError

STATE, ACTION = "observation/state", "action"
_LIBERO_CAMERAS = ((BASE, "observation/image"), (WRIST, "observation/wrist_image"))
_STEPS = "steps/"


@dataclass(frozen=True)
class Place:
    """Where an episode is."""

    path: Path
    number: int
    split: str
    record: Record | None
    """None: the file is damaged from here on."""
    damage: str | None = None


@dataclass(frozen=True)
class RldsSource:
    """Episodes of a TFDS dataset."""

    metadata: RldsMetadata
    selection: Selection
    instruction: str | None
    """Name of the text with the instruction."""
    places: tuple[Place, ...]

    @property
    def name(self) -> str:
        """As TFDS calls it."""
        return self.metadata.name

    @property
    def embodiment(self) -> Embodiment:
        """The robot."""
        return self.selection.embodiment

    @property
    def num_episodes(self) -> int:
        """Episodes found; what a damaged file lacks counts as one."""
        return len(self.places)

    def episode_name(self, number: int) -> str:
        """`NAME-train.tfrecord-00003-of-00016: episode 4`."""
        return f"{self.places[number].path.name}: episode {self.places[number].number}"

    def identity(self) -> dict[str, Any]:
        """What is taken of which dataset."""
        choice = self.selection
        fields = [vars(field) for field in (*choice.state, *choice.action)]
        return {"rlds": str(self.metadata.root.resolve()), "cameras": choice.cameras, "fields": fields,
                "instruction": self.instruction}  # fmt: skip

    def episode_identity(self, number: int) -> Any:
        """Size and time of its file, and its place in it."""
        place = self.places[number]
        status = place.path.stat() if place.path.exists() else None
        record = None if place.record is None else [place.record.start, place.record.size]
        return [record, None if status is None else [status.st_size, status.st_mtime_ns]]

    def provenance(self) -> list[dict[str, Any]]:
        """The dataset, by its `dataset_info.json`."""
        path = self.metadata.root / INFO
        return [source_entry(path, dataset=self.name, format="rlds", episodes=self.num_episodes)]

    @contextmanager
    def opened(self) -> Iterator[ReadEpisode]:
        """Files are opened for each episode."""
        import_crc32c()
        yield self._read

    def _read(self, number: int) -> Episode:
        place, name = self.places[number], self.episode_name(number)
        if place.record is None:
            raise Fault("unreadable", place.damage or f"{name} is missing.", "Download this file again.")
        steps = parse_example(read_record(place.path, place.record), name)
        arrays = {source: self._array(steps, source, name) for source in self.selection.sources}
        lengths = {source: len(array) for source, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise Fault("length", f"{name}: its arrays have different lengths: {lengths}.")
        return Episode(
            instruction=self._text(steps),
            actions=gather(self.selection.action, arrays),
            proprio=gather(self.selection.state, arrays),
            frames={view: _images(steps, camera, name) for view, camera in self.selection.cameras},
            split=self._split(place.split),
        )

    def _array(self, steps: dict[str, Values], source: str, name: str) -> np.ndarray:
        values = steps.get(_STEPS + source)
        width = self.metadata.columns[source].width
        if not isinstance(values, np.ndarray) or width == 0 or len(values) % width:
            raise Fault("layout", f"{name}: {source} does not hold rows of {width} numbers.")
        return values.reshape(-1, width)

    def _text(self, steps: dict[str, Values]) -> str:
        """The instruction of the first step."""
        values = steps.get(f"{_STEPS}{self.instruction}")
        return values[0].decode("utf-8", "replace") if isinstance(values, list) and values else ""

    def _split(self, split: str) -> str | None:
        """`val` for validation and test; the source does not split if it has one split only."""
        if len({place.split for place in self.places}) == 1:
            return None
        return "val" if split.startswith(("val", "test", "eval")) else "train"


def _images(steps: dict[str, Values], camera: str, name: str) -> list[bytes]:
    values = steps.get(_STEPS + camera)
    if not isinstance(values, list):
        raise Fault("layout", f"{name} has no images in {camera}.")
    return values


def find_rlds_episodes(metadata: RldsMetadata) -> tuple[Place, ...]:
    """The episodes of all files, by reading the lengths of their records. A damaged file, or one with other episodes
    than the metadata say, gets one place more, with its damage."""
    places: list[Place] = []
    for shard in metadata.shards:
        records, damage = index_records(shard.path)
        if damage is None and len(records) != shard.num_episodes:
            damage = f"{shard.path} has {len(records)} episodes, {INFO} says {shard.num_episodes}."
        places += [Place(shard.path, number, shard.split, record) for number, record in enumerate(records)]
        if damage is not None:
            places.append(Place(shard.path, len(records), shard.split, None, damage))
    return tuple(places)


def choose_rlds(metadata: RldsMetadata, options: Options, on_note: Callable[[str], None]) -> Selection:
    """Cameras, fields and robot. LIBERO's are known (openvla/modified_libero_rlds and LIBERO-Plus); for other datasets
    rate and control mode have to be given.

    Raises:
        UsageError: an option is malformed, missing, or names something the dataset lacks.
    """
    known, where = metadata.columns, str(metadata.root)
    chosen = vars(options)
    if _is_libero(metadata) and not any(chosen.values()):
        on_note("LIBERO's robot: observation/image and wrist_image, a state of 8 and actions of 7 numbers")
        state = resolve_fields("--state", _libero_fields(STATE, LIBERO.proprio), known, where)
        action = resolve_fields("--action", _libero_fields(ACTION, LIBERO.action), known, where)
        return Selection(_LIBERO_CAMERAS, state, action, LIBERO)
    cameras, state, action = choose_sources(options, (STATE, ACTION), metadata.images, known, where)
    if options.control_mode is None or options.rate_hz is None:
        raise UsageError(
            f"{metadata.root} does not say what its actions mean, nor at which rate.",
            "Give --control-mode, such as delta_end_effector, and --rate in actions per second.",
        )
    width = sum((field.stop or 0) - field.start for field in action)
    embodiment = build_embodiment(
        plain_name(options.robot or metadata.name), [view for view, _ in cameras], state, action,
        [parse_gripper(text, (), width) for text in options.grippers],
        refuse_control_mode(options.control_mode), options.rate_hz,
    )  # fmt: skip
    return Selection(cameras, state, action, embodiment)


def _is_libero(metadata: RldsMetadata) -> bool:
    widths = [metadata.columns[key].width if key in metadata.columns else 0 for key in (STATE, ACTION)]
    cameras = {camera for _, camera in _LIBERO_CAMERAS}
    return widths == [LIBERO.proprio_width, LIBERO.action_width] and cameras <= set(metadata.images)


def _libero_fields(source: str, specs: Sequence[Any]) -> list[FieldSource]:
    fields, start = [], 0
    for spec in specs:
        fields.append(FieldSource(spec.name, source, start, start + spec.size, spec.unit))
        start += spec.size
    return fields
