"""From the recipe of a mixture to its datasets.

The bytes of the datasets depend on the recipe and the samples of the inputs, not on how these are divided into shards,
on processes or on interruptions. A mixture that was killed goes on after its finished parts.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from pokevla.data.conversion.unfinished import forget, part_folder
from pokevla.data.conversion.workers import Work, run_parts
from pokevla.data.dataset import Dataset, open_dataset, refuse_replacing_dataset
from pokevla.data.mixing.candidates import Candidates, load_candidates
from pokevla.data.mixing.drawing import Drawn, DrawWork, is_drawn
from pokevla.data.mixing.facts import summarise_mixture
from pokevla.data.mixing.joining import conversations
from pokevla.data.mixing.lists import read_lists
from pokevla.data.mixing.scanning import Opened, ScanWork, chunks_of, is_scanned
from pokevla.data.mixing.selection import output_order, right_places, select
from pokevla.data.mixing.summary import (
    ALL_NAME,
    REPORT_NAME,
    REPORT_SIGNATURE,
    SUMMARY_NAME,
    MixtureSummary,
    in_order,
    read_summary,
)
from pokevla.data.mixing.unfinished import NAMES, parts_folder
from pokevla.data.mixing.writing import write_mixture
from pokevla.errors import DataError, RecipeError
from pokevla.files.ownership import foreign_entry, refuse_other_file, refuse_overlap
from pokevla.files.writing import refuse_second_writer
from pokevla.recipe.schema import MixtureRecipe

PART_QUESTIONS = 8192
"""Questions of a part to write: enough that several of them are of one shard of an input."""
PART_TIMEOUT_S = 3600.0
Progress = Callable[[int, int], None]


def mix(
    recipe: MixtureRecipe,
    *,
    workers: int = 0,
    overwrite: bool = False,
    restart: bool = False,
    on_scan: Progress | None = None,
    on_draw: Progress | None = None,
    on_note: Callable[[str], None] | None = None,
    on_written: Callable[[Path], None] | None = None,
) -> MixtureSummary:
    """Write the datasets of a mixture and `mixture.json` to `output/name`; returns the summary.

    Args:
        workers: processes; 0: this one.
        overwrite: replace an earlier mixture.
        restart: discard finished parts of an earlier command for the same mixture whose inputs or recipe were others.
        on_scan, on_draw: called with (done, total) samples read, and written.
        on_note: called with a sentence for everything noticed.
        on_written: called with the complete folder before it gets its name, to add the report.

    Raises:
        RecipeError: bounds contradict each other, or a category is short of its budget and may not be.
        UsageError: the output overlaps an input.
        DataError: an input or a list is missing, damaged or does not fit; the output exists; parts are of other inputs;
            nothing is left.
        EnvironmentSetupError: processes do not start or die, or a part cannot be written.
    """
    out = recipe.output / recipe.name
    refuse_output(out, [*recipe.dataset_paths, *recipe.left_out], overwrite=overwrite)
    datasets = open_inputs(recipe)
    lists, list_facts = read_lists(recipe.left_out, datasets)
    note = on_note if on_note is not None else lambda _: None
    folder = parts_folder(out, recipe, datasets, list_facts, PART_QUESTIONS, restart=restart, on_note=note)
    inputs = [Opened(dataset.root, dataset.fingerprint) for dataset in datasets]
    chunks = chunks_of(datasets)
    scan = ScanWork(inputs, chunks, recipe.seed, folder)
    sizes = {number: chunk.samples for number, chunk in enumerate(chunks)}
    _make(scan, sizes, is_scanned, folder, workers, on_scan)
    candidates = load_candidates(recipe, datasets, chunks, folder, lists)
    strata = select(recipe, candidates)
    places = right_places(candidates, recipe.answers.letters)
    drawn = _drawn(recipe, datasets, candidates, places)
    summary = summarise_mixture(recipe, datasets, list_facts, candidates, strata, places)
    _refuse_short(recipe, summary)
    del candidates
    draw = DrawWork(inputs, drawn, PART_QUESTIONS, recipe.answers.max_points, recipe.seed, folder)
    parts = draw.parts()
    sizes = {part.number: part.questions for part in parts}
    _make(draw, sizes, is_drawn, folder, workers, on_draw)
    numbers = {each.name: [part.number for part in parts if part.which == which] for which, each in enumerate(drawn)}
    several_images = {each.name for each in drawn if _has_several_images(each, datasets)}
    replaces = owned_mixture if overwrite else None
    made = write_mixture(recipe, summary, folder, numbers, several_images, replaces, on_written)
    forget(folder, NAMES)
    for sentence in made.notes:
        note(sentence)
    return made


def open_inputs(recipe: MixtureRecipe) -> list[Dataset]:
    """The datasets of a recipe.

    Raises:
        RecipeError: one is no dataset of questions, or is named twice.
        DataError: one is missing or damaged.
    """
    datasets: list[Dataset] = []
    for number, source in enumerate(recipe.sources):
        try:
            dataset = open_dataset(source.path, mapped=True)
        except DataError as error:
            raise type(error)(f"sources.{number}: {error.message}", error.remedy) from error
        if dataset.kind != "vlm":
            raise RecipeError(
                f"sources.{number}: {source.path} is a {dataset.kind} dataset, it has no questions.", "Leave it out."
            )
        if dataset.fingerprint in [other.fingerprint for other in datasets]:
            raise RecipeError(f"sources.{number}: {source.path} is named twice.", "Leave one out.")
        datasets.append(dataset)
    return datasets


def refuse_output(out: Path, inputs: Iterable[Path], *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, before any work.

    Raises:
        UsageError: it overlaps an input.
        DataError: it exists, and `overwrite` is not set or it holds more than a mixture; or another process writes it.
    """
    refuse_overlap(out, inputs)
    refuse_second_writer(out)
    if out.exists():
        if not overwrite:
            raise DataError(f"{out} already exists.", "Remove it, choose another name, or pass --overwrite.")
        owned_mixture(out)


def owned_mixture(out: Path) -> None:
    """Refuse to replace a folder that holds anything but a mixture of ours. Raises DataError."""
    try:
        names = read_summary(out).datasets
    except DataError as error:
        raise DataError(
            f"{out} is not replaced: it cannot be recognised as a mixture ({error.message})",
            "Remove it yourself, or choose another name.",
        ) from error
    for name in names:
        refuse_replacing_dataset(out / name)
    refuse_other_file(out / REPORT_NAME, REPORT_SIGNATURE, "mixture report")
    patterns = [SUMMARY_NAME, REPORT_NAME, *(f"{name}/**" for name in names)]
    entry = foreign_entry(out, patterns)
    if entry is not None:
        raise DataError(f"{out} is not replaced: {entry} does not belong to the mixture.", "Move it elsewhere.")


def _make(
    work: Work,
    sizes: dict[int, int],
    is_there: Callable[[Path, int], bool],
    folder: Path,
    workers: int,
    on_samples: Progress | None,
) -> None:
    """Make the parts that are not there. `sizes`: samples of each part, by its number."""
    absent = [number for number in sizes if not is_there(folder, number)]
    for number in absent:
        shutil.rmtree(part_folder(folder, number), ignore_errors=True)
    total = sum(sizes.values())
    done = total - sum(sizes[number] for number in absent)
    making: Iterator[int] = run_parts(work, absent, workers, PART_TIMEOUT_S)
    with closing(making):  # pyright: ignore[reportArgumentType]
        for number in making:
            done += sizes[number]
            if on_samples is not None:
                on_samples(done, total)


def _drawn(
    recipe: MixtureRecipe, datasets: Sequence[Dataset], candidates: Candidates, places: np.ndarray
) -> list[Drawn]:
    """What each dataset gets; those without samples are left away. Raises DataError if none has any."""
    names = {ALL_NAME: None} if recipe.datasets == "one" else {name: name for name in in_order(recipe.categories)}
    drawn = []
    for name, category in names.items():
        rows, starts = conversations(recipe, datasets, candidates, output_order(candidates, category))
        if len(rows):
            drawn.append(Drawn(name, *candidates.place(rows), places[rows], starts))
    if not drawn:
        raise DataError(
            f"Nothing is left of the {len(candidates)} samples of the sources of {recipe.name}.",
            "Look at categories, split and caps of the recipe.",
        )
    return drawn


def _has_several_images(drawn: Drawn, datasets: Sequence[Dataset]) -> bool:
    """Whether one of the samples has more than one image."""
    for number in np.unique(drawn.inputs).tolist():
        table = datasets[number].rows
        if table.has("num_images"):
            rows = drawn.rows[drawn.inputs == number]
            if (table.numbers("num_images", 0, len(table))[rows] > 1).any():
                return True
    return False


def _refuse_short(recipe: MixtureRecipe, summary: MixtureSummary) -> None:
    short = [each for each in summary.categories if each.missing > 0]
    if recipe.short == "stop" and short:
        named = ", ".join(f"{each.category} has {each.selected:,} of {each.budget:,}" for each in short)
        raise RecipeError(f"The sources are short of the budget: {named}.", "Lower the budgets, or set short: note.")
