"""A published benchmark: asks a model all questions in batches, scores its replies, writes the folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pokevla.evaluation.vlm.grounding import spread
from pokevla.evaluation.vlm_benchmarks.figures import Chance, part_figures
from pokevla.evaluation.vlm_benchmarks.judging import Judged, Reply, judge_choosing, judge_pointing
from pokevla.evaluation.vlm_benchmarks.parsing.points import PointParser, where2place_tuples
from pokevla.evaluation.vlm_benchmarks.pictures import question_picture
from pokevla.evaluation.vlm_benchmarks.reading.cvbench import WEIGHTS, read_cvbench
from pokevla.evaluation.vlm_benchmarks.reading.items import Item, Part, refuse_unknown_wording
from pokevla.evaluation.vlm_benchmarks.reading.refspatial import family_of, read_refspatial
from pokevla.evaluation.vlm_benchmarks.reading.where2place import read_where2place
from pokevla.evaluation.vlm_benchmarks.respondents import Respondent, open_respondent
from pokevla.evaluation.vlm_benchmarks.results import FOLDER, write_results
from pokevla.files.ownership import refuse_overlap

BenchmarkName = Literal["where2place", "refspatial", "cvbench"]
ProgressCallback = Callable[[int, int], None]
"""(questions answered, all)"""
FEW_IMAGES = 20
"""Below this many, a bootstrap interval is too narrow to be shown without a word."""


@dataclass(frozen=True)
class Settings:
    """What is asked, and how. The values are defaults of ours."""

    benchmark: BenchmarkName
    model: Path
    data: Path
    parts: list[str] | None = None
    """None: all that the data has."""
    questions: int | None = None
    """Ask at most this many of each part, evenly spread; None: all."""
    wording: str = "official"
    family: str = "relative"
    """Of RefSpatial-Bench: how the model is asked and read."""
    max_new_tokens: int = 256
    batch_size: int = 16
    pictures: int = 12
    """Questions of each part that are drawn."""


def evaluate_vlm(
    settings: Settings,
    out: Path,
    *,
    overwrite: bool = False,
    on_progress: ProgressCallback | None = None,
    respondent: Respondent | None = None,
) -> dict[str, Any]:
    """Ask a model a published benchmark; returns `summary.json` of the folder `out`.

    Decoding is greedy. Memory: the model, one batch of pictures, and the texts of all replies.

    Args:
        settings: what is asked of which model.
        out: folder to write, complete or not at all.
        overwrite: replace an earlier result.
        on_progress: called after each batch.
        respondent: the model, if it is not to be opened from `settings.model`.

    Raises:
        UsageError: an option has no such value, or `out` lies in the data or the model.
        DataError: the data is not the benchmark, or is damaged; or `out` exists.
        CheckpointError: `settings.model` is not a model that answers questions.
    """
    refuse_overlap(out, [settings.data, settings.model])
    FOLDER.refuse(out, overwrite=overwrite)
    parts = read_parts(settings)
    model = respondent or open_respondent(settings.model)
    numbers = {part.name: spread(part.count, settings.questions or part.count) for part in parts}
    total, done = sum(map(len, numbers.values())), 0
    summaries: dict[str, Any] = {}
    pictures: dict[str, list[np.ndarray]] = {}
    records: list[Judged] = []
    for part in parts:
        chosen = numbers[part.name]
        drawn = {chosen[place] for place in spread(len(chosen), settings.pictures)} if settings.pictures else set()
        judged, chance, pictures[part.name] = [], Chance(), []
        for place, (item, reply) in enumerate(_answered(model, part.read(chosen), settings)):
            one = _judge(settings, part.name, item, reply)
            judged.append(one)
            chance.add(item)
            if chosen[place] in drawn:
                pictures[part.name].append(question_picture(item, one))
            done += 1
            if on_progress is not None and (done % settings.batch_size == 0 or done == total):
                on_progress(done, total)
        weights = WEIGHTS if settings.benchmark == "cvbench" else None
        summaries[part.name] = part_figures(part, judged, chance, weights)
        records += judged
    summary = _summary(settings, model, summaries, _labels(settings, model, summaries, records))
    write_results(out, summary, records, pictures, overwrite=overwrite)
    return summary


def read_parts(settings: Settings) -> list[Part]:
    """The parts of the benchmark that are asked. Raises UsageError and DataError as `evaluate_vlm`."""
    wording = refuse_unknown_wording(settings.wording)
    if settings.benchmark == "where2place":
        return read_where2place(settings.data, settings.parts, wording)
    if settings.benchmark == "refspatial":
        return read_refspatial(settings.data, settings.parts, wording, settings.family)
    return read_cvbench(settings.data, wording)


def _answered(model: Respondent, items: Iterator[Item], settings: Settings) -> Iterator[tuple[Item, Reply]]:
    while batch := list(islice(items, settings.batch_size)):
        images, prompts = [item.image for item in batch], [item.prompt for item in batch]
        yield from zip(batch, model.answer(images, prompts, settings.max_new_tokens), strict=True)


def _judge(settings: Settings, part: str, item: Item, reply: Reply) -> Judged:
    if settings.benchmark == "cvbench":
        return judge_choosing(part, item, reply)
    return judge_pointing(part, item, reply, _parser(settings))


def _parser(settings: Settings) -> PointParser:
    return where2place_tuples if settings.benchmark == "where2place" else family_of(settings.family).parse


def _summary(
    settings: Settings, model: Respondent, parts: Mapping[str, Any], labels: list[str]
) -> dict[str, Any]:  # fmt: skip
    return {
        "kind": FOLDER.kind,
        "benchmark": settings.benchmark,
        "model": settings.model.name or str(settings.model),
        "model_path": str(settings.model),
        "model_kind": model.kind,
        "data": str(settings.data),
        "wording": settings.wording,
        "family": settings.family if settings.benchmark == "refspatial" else None,
        "max_new_tokens": settings.max_new_tokens,
        "labels": labels,
        "parts": parts,
    }


def _labels(
    settings: Settings, model: Respondent, parts: Mapping[str, Any], records: list[Judged]
) -> list[str]:  # fmt: skip
    """What a reader of the scores has to know first."""
    labels = list(model.labels)
    if settings.wording != "official":
        labels.append("The questions ask for the format in the words of PokeVLA's training, not in the published ones.")
    for name, part in parts.items():
        if part["questions"] != part["published_questions"]:
            labels.append(
                f"{name}: {part['questions']} questions, the published set has {part['published_questions']}: do not "
                "compare the score with published ones."
            )
        if part["official"] is None:
            labels.append(f"{name}: no official score, because a source is missing or no reply was evaluated.")
        if part["truncated"]:
            labels.append(f"{name}: {part['truncated']} replies were cut off after {settings.max_new_tokens} tokens.")
        if part.get("read_as_pixels"):
            labels.append(f"{name}: {part['read_as_pixels']} replies in whole numbers were read as pixels.")
        if len({one.image for one in records if one.part == name}) < FEW_IMAGES:
            labels.append(f"{name}: fewer than {FEW_IMAGES} images: the intervals are too narrow.")
    return labels
