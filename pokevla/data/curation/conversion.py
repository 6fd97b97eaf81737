"""From a published question set to a dataset: chunks made by any number of processes, put together in order.

The bytes of the dataset depend on the source and the settings, not on the number of processes or on interruptions.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pokevla
from pokevla.data.conversion.unfinished import begun_folder, forget, part_folder
from pokevla.data.conversion.workers import run_parts
from pokevla.data.curation.box_order import BoxDecision, decide_order
from pokevla.data.curation.drafts import BoxOrder, Row, RowFile, Source
from pokevla.data.curation.making import NAMES, ChunkWork, MakingSettings, Task, read_header, read_part, usable
from pokevla.data.curation.report import CurationReport
from pokevla.data.curation.row_files import Survey, file_state, read_rows, survey_file, survey_from_json
from pokevla.data.curation.rules import Reject
from pokevla.data.dataset import CHECKS_NAME, refuse_output
from pokevla.data.records import image_names
from pokevla.data.sources.images import JPEG_QUALITY
from pokevla.data.sources.provenance import made_by
from pokevla.data.tables.questions import schema_for, table_row
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.errors import DataError, UsageError
from pokevla.files.texts import read_json, write_json
from pokevla.telemetry.code_version import code_commit

CHUNK_TIMEOUT_S = 1800.0
_CHUNKS_PER_FILE = 1_000_000
"""Numbers of parts begin anew for each file, so that a longer file does not move those of the next."""


@dataclass(frozen=True)
class CurationSettings:
    """Options of every conversion of a published question set."""

    out: Path
    max_side: int = 640
    """Larger images are reduced to this side; smaller JPEGs stay as they are. Coordinates, as fractions, hold."""
    jpeg_quality: int = JPEG_QUALITY
    max_text: int = 16384
    """Longest question or answer in characters."""
    val_every: int = 0
    """Every Nth image, or group of the source, is of the split `val`, chosen by a hash of its name; 0: none."""
    shard_samples: int = 1024
    box_order: BoxOrder | Literal["data"] = "data"
    max_rejected: float = 0.5
    """Largest share of the records that may be rejected."""
    allow_damaged: bool = False
    """Use the rows before the place where a file is cut off."""
    workers: int = 0
    """Processes; 0: this one, without protection from crashes of decoders."""
    chunk_timeout_s: float = CHUNK_TIMEOUT_S
    overwrite: bool = False
    command: str = "convert"
    source_options: Mapping[str, Any] = field(default_factory=dict)
    """What the source was set to, as JSON values: recorded, and finished chunks of other options are not used."""

    @property
    def of_parts(self) -> MakingSettings:
        """What a single part depends on."""
        return MakingSettings(self.max_side, self.jpeg_quality, self.max_text, self.val_every)


@dataclass(frozen=True)
class _Plan:
    """The files of a source, surveyed."""

    files: Sequence[tuple[RowFile, str, Survey, BoxDecision | None]]
    tasks: dict[int, Task]

    @property
    def damages(self) -> list[str]:
        """A sentence for each file that is cut off or damaged."""
        return [
            f"{file.path} is damaged at byte {survey.damage.offset}: {survey.damage.what}. "
            f"The {survey.num_rows} rows before it are converted and kept."
            for file, _, survey, _ in self.files
            if survey.damage is not None
        ]

    @property
    def decisions(self) -> dict[str, Any]:
        """What was decided about the boxes of each file."""
        return {name: decision.to_json() for _, name, _, decision in self.files if decision is not None}


def convert_source(
    source: Source,
    root: Path,
    settings: CurationSettings,
    on_rows: Callable[[int, int], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Path:
    """Convert a source and return the dataset directory.

    Calls `on_rows(done, total)` after each chunk of rows, and `on_note` with a line for everything noticed. A
    conversion that was killed goes on after its finished chunks.

    Raises:
        DataError: a file is no list of rows, or ends too early (what comes before is converted and kept for the next
            call); too many records are rejected; none is left; or writing failed.
        EnvironmentSetupError: the processes do not start, or a part cannot be written.
    """
    refuse_output(settings.out, [root], overwrite=settings.overwrite)
    folder = begun_folder(settings.out, _identity(source, settings), NAMES)
    plan = _plan(source, root, settings, folder)
    report = CurationReport()
    total = sum(task.chunk.count for task in plan.tasks.values())
    done = 0
    for number in _made(source, root, settings, folder, plan.tasks):
        report.add(plan.tasks[number].name, read_header(folder, number))
        done += plan.tasks[number].chunk.count
        if on_rows is not None:
            on_rows(done, total)
    if plan.damages and not settings.allow_damaged:
        raise DataError(
            " ".join(plan.damages),
            "Get the file again and repeat the command, or pass --allow-damaged to do without the rest.",
        )
    _refuse_many(report, settings, on_note)
    made = _assemble(source, settings, folder, plan, report)
    forget(folder, NAMES)
    if on_note is not None:
        for note in [*plan.damages, *report.notes()]:
            on_note(note)
    return made


def prepare_slice(
    source: Source,
    root: Path,
    settings: CurationSettings,
    index: int,
    count: int,
    on_rows: Callable[[int, int], None] | None = None,
) -> int:
    """Convert every `count`-th chunk from number `index` on, without putting the dataset together; returns how many
    rows they have. Tasks of a job array do this side by side; `convert_source` afterwards finds their work done.

    Raises:
        UsageError: there is no such slice.
        DataError: finished chunks were converted with other options, or writing failed.
    """
    if not 0 <= index < count:
        raise UsageError(f"--slice {index}/{count}: there is none.", f"Slices are 0/{count} to {count - 1}/{count}.")
    refuse_output(settings.out, [root], overwrite=settings.overwrite)
    folder = begun_folder(settings.out, _identity(source, settings), NAMES, shared=True)
    plan = _plan(source, root, settings, folder)
    tasks = {number: plan.tasks[number] for number in list(plan.tasks)[index::count]}
    total, done = sum(task.chunk.count for task in tasks.values()), 0
    for number in _made(source, root, settings, folder, tasks):
        done += tasks[number].chunk.count
        if on_rows is not None:
            on_rows(done, total)
    return total


def _identity(source: Source, settings: CurationSettings) -> dict[str, Any]:
    return {
        "source": source.name,
        "version": source.version,
        "settings": {**vars(settings.of_parts), **settings.source_options},
        "pokevla": pokevla.__version__,
        "code": code_commit(),
    }


def _plan(source: Source, root: Path, settings: CurationSettings, folder: Path) -> _Plan:
    if not root.is_dir():
        what = "is a file, perhaps an archive" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}.", "Unpack the source, and give its folder.")
    files, tasks = [], {}
    for place, file in enumerate(source.files(root)):
        name = file.path.relative_to(root).as_posix()
        survey, decision = _surveyed(source, root, file, name, folder / f"survey-{place:06d}.json")
        if decision is not None and settings.box_order != "data":
            decision = BoxDecision(
                settings.box_order, decision.num_boxes, decision.inverted, decision.too_large, "user"
            )
        files.append((file, name, survey, decision))
        for number, chunk in enumerate(survey.chunks):
            order = decision.order if decision is not None else None
            tasks[place * _CHUNKS_PER_FILE + number] = Task(file, name, chunk, order)
    return _Plan(files, tasks)


def _surveyed(source: Source, root: Path, file: RowFile, name: str, stored: Path) -> tuple[Survey, BoxDecision | None]:
    """The survey of a file, taken from an earlier call or another process if the file is the same."""
    state = (0, 0) if file.path.is_dir() else file_state(file.path)
    if stored.exists() and state != (0, 0):
        try:
            content = read_json(stored, max_bytes=1 << 30)
            survey = survey_from_json(content["survey"])
            if content["name"] == name and (survey.size_bytes, survey.time_ns) == state:
                return survey, BoxDecision(**content["decision"]) if content["decision"] else None
        except (DataError, KeyError, TypeError):
            stored.unlink(missing_ok=True)  # damaged: the file is read again
    survey = survey_file(file.path)
    decision = decide_order(_boxes(source, root, file, name, survey)) if source.box_sample is not None else None
    if not file.path.is_dir():  # a folder is listed anew: it may have changed without a trace
        content = {"name": name, "survey": survey.to_json(), "decision": decision.to_json() if decision else None}
        write_json(stored, content, indent=None)
    return survey, decision


def _boxes(source: Source, root: Path, file: RowFile, name: str, survey: Survey) -> Iterator[Sequence[float]]:
    sample = source.box_sample
    if sample is None:
        return
    for chunk in survey.chunks:
        for number, value in read_rows(file.path, chunk):
            if not isinstance(value, Reject):
                yield from sample(Row(value, number, name, file.subset, root))


def _made(
    source: Source, root: Path, settings: CurationSettings, folder: Path, tasks: dict[int, Task]
) -> Iterator[int]:
    """Each number of `tasks`, in order, once its part is there."""
    done = {number for number, task in tasks.items() if usable(folder, number, task, root)}
    absent = [number for number in tasks if number not in done]
    for number in absent:
        shutil.rmtree(part_folder(folder, number), ignore_errors=True)
    work = ChunkWork(source, root, tasks, settings.of_parts, folder)
    making = run_parts(work, absent, settings.workers, settings.chunk_timeout_s)
    with closing(making):
        for number in tasks:
            while number not in done:
                done.add(next(making))
            yield number


def _refuse_many(report: CurationReport, settings: CurationSettings, on_note: Callable[[str], None] | None) -> None:
    total = report.rejected + report.records
    if report.rejected <= settings.max_rejected * total and report.records:
        return
    if on_note is not None:
        for note in report.notes():
            on_note(note)
    reasons = ", ".join(f"{count} {code}" for code, count in report.counts().items()) or "there are no rows"
    raise DataError(
        f"{report.rejected} of {total} records are rejected ({reasons}); at most {settings.max_rejected:g} of them may "
        "be, and one must be left.",
        "Repair the source and repeat the command, which goes on, or allow more with --max-rejected.",
    )


def _assemble(source: Source, settings: CurationSettings, folder: Path, plan: _Plan, report: CurationReport) -> Path:
    categories: dict[str, int] = {}
    with DatasetWriter(
        settings.out,
        group=source.name.replace("-", "_"),
        samples=schema_for(several_images=report.several_images > 0),
        shard_samples=settings.shard_samples,
        overwrite=settings.overwrite,
    ) as writer:
        for number in plan.tasks:
            for record, jpegs in read_part(folder, number):
                members = {"json": encode_json(record), **dict(zip(image_names(len(jpegs)), jpegs, strict=True))}
                writer.add_sample(record["key"], members, table_row(record))
                categories[record["category"]] = categories.get(record["category"], 0) + 1
                report.add_record(record)
        writer.add_file(CHECKS_NAME, report.to_json(plan.decisions))
        return writer.finish(
            {
                "statistics": None,
                "sources": [_source_entry(name, survey) for _, name, survey, _ in plan.files],
                "categories": dict(sorted(categories.items())),
                "license": source.license,
                "left_out": report.counts(),
                "alarms": report.alarms(),
                "box_order": plan.decisions,
                "made_by": made_by(
                    settings.command,
                    **vars(settings.of_parts),
                    **settings.source_options,
                    shard_samples=settings.shard_samples,
                    allow_damaged=settings.allow_damaged,
                ),
            }
        )


def _source_entry(name: str, survey: Survey) -> dict[str, Any]:
    damage = {"damaged_at": survey.damage.offset} if survey.damage is not None else {}
    return {"file": name, "size_bytes": survey.size_bytes, "xxh64": survey.xxh64, "rows": survey.num_rows, **damage}
