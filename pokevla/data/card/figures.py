"""Everything that the card of a dataset says, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pokevla.data.card.episodes import episode_figures
from pokevla.data.card.pictures import chosen_rows, equal_images, picture_figures
from pokevla.data.card.questions import question_figures
from pokevla.data.dataset import open_dataset
from pokevla.errors import DataError
from pokevla.files.checksums import file_damage
from pokevla.recipe.checking.datasets import CONVERT_AGAIN
from pokevla.recipe.checking.recorded import RECORDED

Counting = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""What is counted -> a context that gives a listener for (done, total)."""
DEFAULT_ROWS = 512


def dataset_figures(root: Path, counting: Counting, rows: int = DEFAULT_ROWS) -> dict[str, Any]:
    """The figures of a dataset's card: counts, texts, histograms, equal images, what looks wrong, some pictures.

    The tables are read in pieces and pictures are decoded for `rows` samples only, so memory does not grow with the
    dataset.

    Args:
        root: dataset directory.
        counting: shows progress.
        rows: samples whose pictures are looked at.

    Raises:
        DataError: not a dataset, or one of its tables or indices is damaged. Damaged samples are among the figures.
    """
    dataset = open_dataset(root, mapped=True)
    for table in dataset.tables.values():
        damage = file_damage(root, table)
        if damage is not None:
            raise DataError(damage, CONVERT_AGAIN)
    info, shards = dataset.info, dataset.info["shards"].values()
    figures: dict[str, Any] = {
        "name": root.absolute().name,
        "kind": dataset.kind,
        "fingerprint": dataset.fingerprint,
        "num_samples": len(dataset.rows),
        "shards": len(dataset.shard_names),
        "size_bytes": sum(shard["size_bytes"] for shard in shards),
        "fields": dataset.fields,
        "sources": _sources(info.get("sources") or ()),
        "recorded": info.get(RECORDED) or None,
        "embodiment": None if dataset.embodiment is None else dataset.embodiment.to_dict(),
    }
    if dataset.embodiment is not None:
        with counting("episodes") as on_episode:
            figures["robot"] = episode_figures(dataset, on_episode)
    else:
        with counting("questions") as on_row:
            figures["vlm"] = question_figures(dataset, on_row)
    with counting("shards") as on_shard:
        figures["equal_images"] = equal_images(dataset, on_shard)
    with counting("pictures") as on_picture:
        figures |= picture_figures(dataset, chosen_rows(dataset, rows), on_picture)
    return figures


def _sources(entries: Iterable[Any]) -> list[str]:
    names = [entry.get("file") or entry.get("name") for entry in entries if isinstance(entry, dict)]
    return [str(name) for name in names if name]


def without_pictures(figures: dict[str, Any]) -> dict[str, Any]:
    """The same figures without what is only shown."""
    return {**figures, "samples": [sample["key"] for sample in figures["samples"]],
            "near": {name: value for name, value in figures["near"].items() if name != "shown"}}  # fmt: skip


def refuse_what_is_wrong(root: Path, figures: dict[str, Any]) -> None:
    """Raise DataError for the first bad number or damaged sample of the figures."""
    found = [*figures.get("robot", {}).get("alarms", ()), *figures["damaged"]]
    if found:
        others = f" There are {len(found) - 1} more." if len(found) > 1 else ""
        raise DataError(f"{root}: {found[0]}{others}", "Repair the source and convert it again.")
