"""What of a mixture a reader should look at first. All limits are ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pokevla.data.curation.report import LETTER_SKEW, MANY_REJECTED, MIN_COUNT
from pokevla.data.curation.rules import ALARMS, PASSED_OVER
from pokevla.data.mixing.summary import InputFacts, MixtureSummary
from pokevla.files.labels import printable
from pokevla.telemetry.figures import percent

TOP_QUESTION = 0.2
"""Share of one question among those of a source from which it is reported."""
CENTRE = 0.6
"""Share of targets in the quarter of the image around its centre from which it is reported; evenly it is 0.25."""
YES = (0.4, 0.6)
"""Share of yes outside of which it is reported."""
LONG_ANSWERS = 2.0
"""Reported if a category's share of the length of all answers is this many times its share of the samples."""
CHECKS = {
    "duplicates": "No list of duplicates was left out: samples may repeat or contradict each other "
    "(pokevla data duplicates).",
    "leakage": "No list of benchmark pictures was left out: leakage was not checked (pokevla data leakage).",
}


def alarms_of(summary: MixtureSummary, figures: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing noticed, the mixture's notes first.

    Args:
        figures: of `mixture_figures`.
    """
    kinds = {each.kind for each in summary.lists}
    found = [
        *summary.notes,
        *(f"Damaged: {sentence}" for sentence in figures["damaged"]),
        *(sentence for kind, sentence in CHECKS.items() if kind not in kinds),
        *_waivers(summary),
        *_inputs(summary),
        *_groups(figures),
        *_positions(figures),
        *_answers(figures),
        *_lengths(figures),
    ]
    return [printable(sentence) for sentence in found]


def input_name(each: InputFacts, summary: MixtureSummary) -> str:
    """The folder of an input without those above it, unless two have the same name."""
    name = Path(each.path).name
    return name if [Path(other.path).name for other in summary.inputs].count(name) == 1 else each.path


def _waivers(summary: MixtureSummary) -> Iterator[str]:
    for each in summary.lists:
        if each.waived:
            yield f"The check for {each.kind} accepts hits by waivers ({len(each.waived)}): their reasons are below."


def _inputs(summary: MixtureSummary) -> Iterator[str]:
    for each in summary.inputs:
        name = input_name(each, summary)
        rejected = sum(count for code, count in each.rejected.items() if code not in PASSED_OVER)
        share = rejected / max(1, rejected + each.samples)
        if share > MANY_REJECTED or "many_rejected" in each.alarms:
            of_file = " (of one file more than 20 %)" if share <= MANY_REJECTED else ""
            yield f"{name}: its conversion rejected {percent(share)} of the records{of_file}."
        for code in (code for code in each.alarms if code != "many_rejected"):
            meaning = f": {ALARMS[code]}" if code in ALARMS else ""
            yield f"{name}: alarm {code} of its conversion{meaning}."
        if not each.license:
            yield f"{name} does not state a licence."


def _groups(figures: Mapping[str, Any]) -> Iterator[str]:
    for row in figures["groups"]:
        if row["source"] is not None and row["samples"] >= MIN_COUNT and row["share_top"] > TOP_QUESTION:
            share = percent(row["share_top"])
            yield f"{row['category']}, {row['source']}: one question is asked in {share} of the samples."


def _positions(figures: Mapping[str, Any]) -> Iterator[str]:
    for row in figures["positions"]:
        if row["count"] >= MIN_COUNT and row["centre"] > CENTRE:
            yield (
                f"{row['category']}, {row['kind']}: {percent(row['centre'])} of the targets lie in the quarter around "
                "the centre; evenly it would be 25 %."
            )


def _answers(figures: Mapping[str, Any]) -> Iterator[str]:
    for row in figures["letters"]:
        if sum(row["after"]) >= MIN_COUNT and row["skew"] > LETTER_SKEW:
            letter = row["letters"][row["after"].index(max(row["after"]))]
            share = percent(max(row["after"]) / sum(row["after"]))
            yield f"{row['category']}, {row['source']}: {letter} is the right letter of {share} of the questions."
    for row in figures["yes_no"]:
        share = row["share_after"]
        if share is not None and sum(row["after"].values()) >= MIN_COUNT and not YES[0] <= share <= YES[1]:
            yield f"{row['category']}, {row['source']}, {row['task']}: yes is the answer of {percent(share)}."


def _lengths(figures: Mapping[str, Any]) -> Iterator[str]:
    unit = figures["lengths"]["units"][0]
    for row in figures["lengths"]["rows"]:
        if row["unit"] == unit and row["share_answers"] > LONG_ANSWERS * row["share_samples"]:
            times = row["share_answers"] / row["share_samples"]
            yield (
                f"{row['category']} has {percent(row['share_samples'])} of the samples and "
                f"{percent(row['share_answers'])} of the {unit} of all answers: a loss averaged over tokens weighs it "
                f"{times:.1f} times as much as one averaged over samples."
            )
