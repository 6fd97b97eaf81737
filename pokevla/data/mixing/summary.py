"""`mixture.json`, beside the datasets of a mixture: what was read, what was left out and why, what was taken.

    output/name/general/ ...    a dataset for each category with samples, or with `datasets: one` only `all/`
    output/name/mixture.json    `MixtureSummary` as JSON: its fields by name, and `schema_version`
    output/name/report.html     the same for people, and what the samples are like; can be made again

A sample is a row of one input. Where the recipe joins questions about one image, several of them are one sample of a
dataset, so `datasets` count fewer. Each sample read ends at exactly one step, so for every entry of `counts`

    read = not_wanted + sum(left_out.values()) + capped + unbalanced + over_budget + selected

The steps are taken in this order. Entries of `counts` are by category x source x task x answer_kind, those of `strata`
by category x source x task, among which the budget of a category is shared; both are sorted by these. Category and
source are those of the sample's record (`robopoint`, `refspatial-reasoning`, ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pokevla.data.records import CATEGORIES
from pokevla.errors import DataError
from pokevla.files.texts import read_json_object

Name = TypeVar("Name", bound=str)
SUMMARY_NAME = "mixture.json"
REPORT_NAME = "report.html"
REPORT_SIGNATURE = b"<title>PokeVLA mixture report</title>"
"""What tells the report of a mixture from any other page. In the head of its template."""
ALL_NAME = "all"
"""The dataset of a mixture that is written as one."""
SCHEMA_VERSION = 1
STEPS = ("not_wanted", "left_out", "capped", "unbalanced", "over_budget", "selected")
"""Where a sample can end, in the order of the steps."""
STEP_TEXTS = {
    "not_wanted": "of a split, category or task that the recipe does not take",
    "left_out": "in a list of samples to leave out, under its code (duplicate, leak_exact, ...)",
    "capped": "its image, group or run of questions has more samples than the source's caps allow",
    "unbalanced": "the other of yes and no is rarer",
    "over_budget": "the share of its source and task in the budget of the category is used up",
    "selected": "in the mixture",
}
PAPER_SAMPLES: Mapping[str, int] = {
    "general": 665_000,
    "grounding": 694_000,
    "affordance": 553_000,
    "reasoning": 511_000,
}
"""Samples by category in table I of the paper (arXiv 2604.20834), whose text version has no counts by source."""
PAPER_SOURCES: Mapping[str, str] = {
    "general": "LLaVA-Instruct-665K",
    "grounding": "RoboPoint, RefSpatial, RoboRefIt, RoboSpatial",
    "affordance": "HOVA-500K (Ego4D, Epic100), MolmoAct",
    "reasoning": "RefSpatial reasoning, Cosmos agibot",
}
_REMEDY = "Make the mixture again: pokevla data mix"


@dataclass(frozen=True)
class InputFacts:
    """A dataset that was read."""

    path: str
    """As the recipe names it."""
    fingerprint: str
    samples: int
    sources: dict[str, int]
    """Samples by `source` of their record."""
    license: str
    """Empty if the dataset does not say."""
    rejected: dict[str, int]
    """Rows that its conversion left out, by reason code."""
    alarms: list[str]
    """Codes of the alarms of its conversion."""


@dataclass(frozen=True)
class ListFacts:
    """A list of samples to leave out."""

    path: str
    kind: str
    """`duplicates` or `leakage`."""
    xxh64: str
    """Of its `left_out.parquet`."""
    codes: dict[str, int]
    """Samples of the inputs in the list, by code. One that several lists name counts for each of them here, but only
    for the first in `counts`."""
    waived: list[dict[str, Any]]
    """Waivers of the leakage check, each with its reason and how many hits it accepted."""


@dataclass(frozen=True)
class CategoryFacts:
    """A category against its budget: a row of the twin of table I."""

    category: str
    budget: int
    paper: int
    """Samples of the category in the paper."""
    available: int
    """Samples before the budget, after all that was left out."""
    selected: int
    dataset: str | None
    """Folder of its samples, relative to `mixture.json`; None if there are none."""

    @property
    def missing(self) -> int:
        """Samples by which the sources fall short of the budget."""
        return self.budget - self.selected


@dataclass(frozen=True)
class StratumFacts:
    """The share of a source and task in the budget of its category."""

    category: str
    source: str
    task: str
    weight: float
    """Of its share, before bounds."""
    least: int
    """Taken in any case: the floor, or all of a source that is taken whole."""
    available: int
    """Samples before the budget."""
    most: int
    """The smaller one of `available` and the recipe's bound for the task."""
    selected: int

    @property
    def is_exhausted(self) -> bool:
        """Whether all that was allowed of it is taken."""
        return self.selected == self.most


@dataclass(frozen=True)
class CountFacts:
    """How many samples of a kind ended at which step."""

    category: str
    source: str
    task: str
    answer_kind: str
    read: int
    not_wanted: int
    left_out: dict[str, int]
    """By code; only codes that occur."""
    capped: int
    unbalanced: int
    over_budget: int
    selected: int


@dataclass(frozen=True)
class AnswerFacts:
    """Answers of a source and task before and after: `before` of all samples read, `after` of those in the mixture."""

    category: str
    source: str
    task: str
    options: int
    """Of letters: number of options of the question; 0 for questions whose options cannot be told. Of yes and no: 0."""
    before: dict[str, int]
    """By letter, or by `yes` and `no`; of read samples."""
    after: dict[str, int]
    fixed: int = 0
    """Of letters: samples in the mixture whose options keep their order, because a text refers to letters or the
    options cannot be told apart."""


@dataclass(frozen=True)
class MixtureSummary:
    """The content of `mixture.json`."""

    name: str
    seed: int
    recipe: dict[str, Any]
    """All values of the recipe."""
    inputs: list[InputFacts]
    lists: list[ListFacts]
    categories: list[CategoryFacts]
    strata: list[StratumFacts]
    counts: list[CountFacts]
    letters: list[AnswerFacts]
    """Multiple-choice questions."""
    yes_no: list[AnswerFacts]
    """Questions answered by yes or no, in a word or as one of two options."""
    thinned: dict[str, int]
    """Samples in the mixture of whose points only some are kept, by category."""
    datasets: dict[str, dict[str, Any]]
    """Folder -> `fingerprint`, `samples`, `size_bytes` (of the shards)."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what is not as the recipe wants it: a budget larger than its sources, ..."""
    made_by: dict[str, Any] = field(default_factory=dict)
    """Version and commit of the program."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    @property
    def selected(self) -> int:
        """Samples in the mixture."""
        return sum(each.selected for each in self.categories)

    @property
    def written(self) -> int:
        """Samples of its datasets: fewer than `selected` where questions about one image were joined."""
        return sum(facts["samples"] for facts in self.datasets.values())

    def step_totals(self, category: str | None = None) -> dict[str, int]:
        """`read`, then how many samples ended at each step; of one category, or of all."""
        rows = [row for row in self.counts if category in (None, row.category)]
        totals = {"read": sum(row.read for row in rows)}
        for step in STEPS:
            values = (getattr(row, step) for row in rows)
            totals[step] = sum(sum(value.values()) if isinstance(value, dict) else value for value in values)
        return totals

    def left_out_codes(self) -> dict[str, int]:
        """Samples left out by each code."""
        codes: dict[str, int] = {}
        for row in self.counts:
            for code, count in row.left_out.items():
                codes[code] = codes.get(code, 0) + count
        return dict(sorted(codes.items()))

    def table_one(self) -> list[TableRow]:
        """The twin of the paper's table I: a row for each source of a category, then one for the category."""
        rows: list[TableRow] = []
        for each in self.categories:
            for source in sorted({row.source for row in self.counts if row.category == each.category}):
                its = [row for row in self.counts if (row.category, row.source) == (each.category, source)]
                rows.append(TableRow(each.category, source, sum(r.read for r in its), sum(r.selected for r in its)))
            read = sum(row.read for row in self.counts if row.category == each.category)
            rows.append(TableRow(each.category, None, read, each.selected, each.budget, each.paper))
        return rows


@dataclass(frozen=True)
class TableRow:
    """A row of the twin of table I. `budget` and `paper` are those of a category; `source` is None in its row."""

    category: str
    source: str | None
    read: int
    selected: int
    budget: int | None = None
    paper: int | None = None


_ENTRIES: dict[str, Any] = {
    "inputs": InputFacts,
    "lists": ListFacts,
    "categories": CategoryFacts,
    "strata": StratumFacts,
    "counts": CountFacts,
    "letters": AnswerFacts,
    "yes_no": AnswerFacts,
}


def read_summary(path: Path) -> MixtureSummary:
    """The summary of a mixture; `path` is `mixture.json` or the folder that holds it.

    Raises:
        DataError: it is missing or damaged, or of another schema version.
    """
    path = path / SUMMARY_NAME if path.is_dir() else path
    content = read_json_object(path, remedy=_REMEDY)
    version = content.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise DataError(f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}.", _REMEDY)
    try:
        for name, kind in _ENTRIES.items():
            content[name] = [kind(**entry) for entry in content[name]]
        return MixtureSummary(**content)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}).", _REMEDY) from error


def in_order(categories: Iterable[Name]) -> list[Name]:
    """Categories, each once, in the order of the paper, then any others."""
    places: dict[str, int] = {name: place for place, name in enumerate(CATEGORIES)}
    return sorted(set(categories), key=lambda name: (places.get(name, len(places)), name))
