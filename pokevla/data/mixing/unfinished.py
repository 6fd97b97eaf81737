"""The finished parts of a mixture that has not ended.

.unfinished-NAME/        beside the folder NAME of the mixture (`pokevla.data.conversion.unfinished`)
    settings.json        what the parts of the scan depend on
    drawn.json           what the parts with samples depend on besides
    000003/              a part of the scan
    1000003/             a part with samples
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pokevla
from pokevla.data.conversion.unfinished import begun_folder
from pokevla.data.dataset import Dataset
from pokevla.data.mixing.drawing import FIRST_PART, MEMBERS, RECORDS
from pokevla.data.mixing.scanning import CHUNK_SAMPLES, SAMPLES_NAME
from pokevla.data.mixing.summary import ListFacts
from pokevla.errors import DataError
from pokevla.files.texts import read_json, write_json
from pokevla.recipe.schema import MixtureRecipe
from pokevla.recipe.values import plain_values
from pokevla.telemetry.code_version import code_commit

_SCANNED, _DRAWN = "settings.json", "drawn.json"
NAMES = (_DRAWN, *(f"*/{name}" for name in (SAMPLES_NAME, RECORDS, MEMBERS)))
"""What a mixture writes into its unfinished folder."""
_TITLES = {
    "inputs": "the fingerprints of the inputs",
    "seed": "the seed",
    "chunk_samples": "the size of parts",
    "lists": "the lists of samples to leave out",
    "recipe": "the recipe",
    "part_questions": "the size of parts",
    "pokevla": "the version of the program",
    "code": "the commit of the program",
}


def parts_folder(
    out: Path,
    recipe: MixtureRecipe,
    datasets: Sequence[Dataset],
    lists: Sequence[ListFacts],
    part_questions: int,
    *,
    restart: bool,
    on_note: Callable[[str], None],
) -> Path:
    """The folder of the parts of `out`, without parts that do not fit.

    Args:
        part_questions: questions of a part.
        restart: discard parts with samples that do not fit.

    Raises:
        DataError: there are parts with samples that do not fit, and `restart` is not set; or the folder holds something
            else, or cannot be written.
    """
    folder = out.with_name(f".unfinished-{out.name}")
    scanned, drawn = _scanned_from(recipe, datasets), _drawn_from(recipe, lists, part_questions)
    changed = _changed(folder / _SCANNED, scanned)
    if not changed:
        changed = _changed(folder / _DRAWN, drawn)
        stale = _drawn_parts(folder) if changed else []
    else:
        stale = _drawn_parts(folder)
    if stale and not restart:
        raise DataError(
            f"An earlier command for {out} did not end, and its parts do not fit: since then {' and '.join(changed)} "
            "changed.",
            "Go on with what it was begun with, or pass --restart to discard its parts.",
        )
    if stale:
        on_note(f"{' and '.join(changed)} changed: {len(stale)} finished parts are discarded.")
    begun_folder(out, scanned, NAMES)
    for part in stale:
        shutil.rmtree(part, ignore_errors=True)
    write_json(folder / _DRAWN, drawn)
    return folder


def _scanned_from(recipe: MixtureRecipe, datasets: Sequence[Dataset]) -> dict[str, Any]:
    return {
        "inputs": [dataset.fingerprint for dataset in datasets],
        "seed": recipe.seed,
        "chunk_samples": CHUNK_SAMPLES,
        "pokevla": pokevla.__version__,
        "code": code_commit(),
    }


def _drawn_from(recipe: MixtureRecipe, lists: Sequence[ListFacts], part_questions: int) -> dict[str, Any]:
    values = plain_values(recipe)
    for name in ("output", "left_out", "paths_as_written"):
        values.pop(name, None)
    sources = [{**source, "path": ""} for source in values.pop("sources")]
    recipe_values = {**values, "sources": sources}
    return {"lists": [each.xxh64 for each in lists], "recipe": recipe_values, "part_questions": part_questions}


def _changed(path: Path, wanted: dict[str, Any]) -> list[str]:
    """In words, what differs from the values that are stored; empty if nothing does."""
    try:
        stored = read_json(path)
    except DataError:  # there is none, or it is damaged
        stored = None
    if not isinstance(stored, dict):
        return ["everything"]
    wanted = json.loads(json.dumps(wanted))
    return [title for name, title in _TITLES.items() if stored.get(name) != wanted.get(name)]


def _drawn_parts(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    parts = (path for path in folder.iterdir() if path.name.isdecimal() and int(path.name) >= FIRST_PART)
    return sorted(path for path in parts if path.is_dir())
