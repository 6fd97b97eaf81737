"""One episode of a source, checked and stored as a part of the conversion."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pokevla.data.conversion.unfinished import new_part
from pokevla.data.recordings.checks import check_numbers, refuse_unusable
from pokevla.data.recordings.episode import Episode, Frame, ReadEpisode, Source
from pokevla.data.recordings.faults import Fault, Finding
from pokevla.data.recordings.frames import Prepared, prepare
from pokevla.data.recordings.parts import FRAMES, PartHeader, finish_part, write_header
from pokevla.data.sources.aspect import Aspect
from pokevla.errors import DataError, DiskFullError

MOVING_SHARE = 0.002
"""Share of a reading's range in the episode by which it changes in a step in which the robot moves. Less may be noise,
while an image of a still scene may come out of a video twice. Ours."""


@dataclass(frozen=True)
class PartSettings:
    """What a part depends on besides its source."""

    image_size: int
    aspect: Aspect
    jpeg_quality: int
    instruction: str
    """Instruction of episodes that have none; empty: they are refused."""
    refuse: tuple[str, ...] = ()
    """Codes of `WARNED` for which an episode is left out too."""


@dataclass(frozen=True)
class EpisodeWork:
    """What each process of a conversion of recordings does (`pokevla.data.conversion.workers.Work`)."""

    source: Source
    settings: PartSettings
    folder: Path

    @contextmanager
    def opened(self) -> Iterator[Callable[[int], None]]:
        """Open the recordings."""
        with self.source.opened() as read:
            yield lambda number: make_part(read, self.source, number, self.settings, self.folder)

    def crashed(self, number: int, problem: str) -> None:
        """Refuse the episode."""
        why = f"{self.source.episode_name(number)}: the process that read it failed: {problem}."
        refuse_episode(self.folder, number, Fault("crashed", why))


def make_part(read: ReadEpisode, source: Source, number: int, settings: PartSettings, folder: Path) -> None:
    """Store episode `number`, or why it cannot be used.

    Raises:
        DiskFullError: disk full.
        EnvironmentSetupError: writing failed otherwise.
    """
    findings: list[Finding] = []
    name, embodiment = source.episode_name(number), source.embodiment
    try:
        episode = _read(read, number, name, settings)
        refuse_unusable(episode, embodiment, name)
        findings += episode.findings
        findings += check_numbers(episode, embodiment, name)
        _refuse_chosen(findings, settings)
        _store(episode, source, number, settings, folder, findings)
    except Fault as fault:
        refuse_episode(folder, number, fault, [each for each in findings if each.message != fault.message])


def refuse_episode(folder: Path, number: int, fault: Fault, findings: list[Finding] | None = None) -> None:
    """Store why an episode cannot be used."""
    last = Finding(fault.code, fault.message)
    with new_part(folder, number) as new:
        write_header(new, PartHeader("", None, {}, (*(findings or ()), last), None, True, fault.remedy))


def _refuse_chosen(findings: list[Finding], settings: PartSettings) -> None:
    for finding in findings:
        if finding.code in settings.refuse:
            raise Fault(finding.code, finding.message)


def _read(read: ReadEpisode, number: int, name: str, settings: PartSettings) -> Episode:
    try:
        episode = read(number)
    except DataError as error:
        raise _as_fault(error, name) from error
    if episode.instruction.strip():
        return episode
    if not settings.instruction:
        raise Fault("missing_task", f"{name} has no instruction.", "Give one with --task.")
    return Episode(**{**vars(episode), "instruction": settings.instruction})


def _as_fault(error: DataError, name: str) -> Fault:
    """A reader's error as the reason why an episode is left out. A full disk is not the episode's fault."""
    if isinstance(error, DiskFullError):
        raise error
    return error if isinstance(error, Fault) else Fault("unreadable", f"{name}: {error.message}", error.remedy)


def _store(
    episode: Episode,
    source: Source,
    number: int,
    settings: PartSettings,
    folder: Path,
    findings: list[Finding],
) -> None:
    """Stream the images of an episode into its part, then its numbers."""
    name, embodiment = source.episode_name(number), source.embodiment
    length = len(episode.actions)
    steps, spans = np.abs(np.diff(episode.proprio, axis=0)), np.ptp(episode.proprio, axis=0)
    moving = np.any(steps > MOVING_SHARE * spans, axis=1)
    offsets = np.zeros((length, embodiment.num_views + 1), np.int64)
    before: dict[str, Prepared] = {}
    repeated = dict.fromkeys(embodiment.views, 0)
    with new_part(folder, number) as new, (new / FRAMES).open("xb") as file, _opened(episode.frames) as frames:
        for t in range(length):
            offsets[t, 0] = file.tell()
            for column, view in enumerate(embodiment.views):
                image = prepare(
                    _next(frames[view], f"{name}: {view}", t, length),
                    settings.image_size,
                    settings.aspect,
                    settings.jpeg_quality,
                    f"{name}: {view}, frame {t}",
                )
                last = before.get(view, image)
                if image.size != last.size:
                    raise Fault("resolution", f"{name}: {view} has images of {last.size} and, at frame {t}, "
                                f"{image.size} pixels.")  # fmt: skip
                repeated[view] += int(t > 0 and image.digest == last.digest and bool(moving[t - 1]))
                before[view] = image
                file.write(image.jpeg)
                offsets[t, column + 1] = file.tell()
        findings += [
            Finding(
                "repeated_frames", f"{name}: {view} repeats {count} of {length} images while the robot moves.", count
            )
            for view, count in repeated.items()
            if count
        ]
        _refuse_chosen(findings, settings)
        sizes = {view: list(image.size) for view, image in before.items()}
        header = PartHeader(
            episode.instruction.strip(), episode.split, sizes, tuple(findings), source.episode_identity(number)
        )
        file.flush()
        finish_part(new, header, episode.actions, episode.proprio.astype(np.float32), offsets)


@contextmanager
def _opened(frames: Mapping[str, Iterable[Frame]]) -> Iterator[dict[str, Iterator[Frame]]]:
    """The images of each view as iterators, closed at the end, so that their files are."""
    with ExitStack() as stack:
        iterators = {view: iter(images) for view, images in frames.items()}
        for iterator in iterators.values():
            if isinstance(iterator, Generator):
                stack.callback(iterator.close)
        yield iterators


def _next(images: Iterator[Frame], what: str, t: int, length: int) -> Frame:
    try:
        return next(images)
    except StopIteration:
        raise Fault("short_video", f"{what} ends after {t} of {length} images.") from None
    except DataError as error:
        raise _as_fault(error, what) from error
