"""What of a mixture a reader should look at first. All limits are ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pokevla.data.curation.report import LETTER_SKEW, MANY_REJECTED, MIN_COUNT
from pokevla.data.curation.rules import ALARMS, PASSED_OVER
from pokevla.data.mixing.summary import MixtureSummary
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


def _waivers(summary: MixtureSummary) -> Iterator[str]:
    for each in summary.lists:
        if each.waived:
            yield f"{len(each.waived)} waivers accept hits of the check for {each.kind}: see their reasons below."


def _inputs(summary: MixtureSummary) -> Iterator[str]:
    for each in summary.inputs:
        rejected = sum(count for code, count in each.rejected.items() if code not in PASSED_OVER)
        if rejected > MANY_REJECTED * (rejected + each.samples):
            share = percent(rejected / (rejected + each.samples))
            yield f"{each.path}: its conversion rejected {share} of the records."
        for code in each.alarms:
            meaning = f": {ALARMS[code]}" if code in ALARMS else ""
            yield f"{each.path}: alarm {code} of its conversion{meaning}."
        if not each.license:
            yield f"{each.path} does not state a licence."


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
            yield (
                f"{row['category']} has {percent(row['share_samples'])} of the samples and "
                f"{percent(row['share_answers'])} of the {unit} of all answers: with a loss averaged over tokens it "
                "dominates."
            )
