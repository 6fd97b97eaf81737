"""Metadata of a dataset directory: `dataset.json`, and the number of samples that can be trained on.

The only reader of `dataset.json`. Tables are read, and pyarrow imported, only to count samples.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.embodiment.mixing import common_embodiment
from pokevla.embodiment.reading import KEY, read_embodiment
from pokevla.errors import DataError
from pokevla.files.checksums import StoredFile, file_damage, stored_files, without_checksum
from pokevla.files.labels import name_problem
from pokevla.files.remote.mirror import is_stored, local_folder
from pokevla.files.texts import read_json
from pokevla.recipe.checking.recorded import RECORDED, Recorded, read_recorded

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SCHEMA_VERSION = 1
INFO_NAME = "dataset.json"
SAMPLES_NAME = "samples.parquet"
EPISODES_NAME = "episodes.parquet"
ALL_SPLITS = "all"
CONVERT_AGAIN = "Convert the dataset again."
_ENTRIES: dict[str, type] = {"kind": str, "fingerprint": str, "num_samples": int, "fields": list, "shards": dict}
"""What every `dataset.json` has, and its type."""


@dataclass(frozen=True)
class DatasetInfo:
    """Metadata of one dataset directory."""

    root: Path
    kind: str
    num_samples: int
    """All samples, of any split."""
    fingerprint: str
    fields: tuple[str, ...] = ()
    """Members that every sample has, such as `base.jpg` or `base.mask.png`."""
    embodiment: Embodiment | None = None
    """The robot of a robot dataset."""
    tables: Mapping[str, StoredFile] = field(default_factory=dict)
    """Size and checksum of each table by name; empty for datasets from before they were stored."""
    recorded: Recorded = field(default_factory=Recorded)
    """Size and rendering of the images, wording of the instructions."""
    num_images: int | None = None
    """Images of all questions, where some have several."""

    @property
    def images_per_sample(self) -> float:
        """Mean number of images of a sample; 1 for questions that have one at most."""
        return self.num_views if self.num_images is None else self.num_images / max(1, self.num_samples)

    @property
    def num_views(self) -> int:
        """Images of one sample."""
        return self.embodiment.num_views if self.embodiment is not None else 1

    @property
    def has_masks(self) -> bool:
        """Whether robot samples carry a mask of each view."""
        return self.embodiment is not None and self.embodiment.mask_members <= set(self.fields)


def read_info(root: Path) -> dict[str, Any]:
    """Content of `root/dataset.json`, checked. `root` may be a URL.

    Raises:
        DataError: the folder is not a dataset, or the file is damaged or has another schema version; or a store does
            not answer.
    """
    root = local_folder(root, INFO_NAME, INFO_NAME)
    path = root / INFO_NAME
    if not os.path.lexists(path):
        raise DataError(f"{root} is not a dataset: {INFO_NAME} is missing.", "Make one with: pokevla data convert")
    content = read_json(path, remedy=CONVERT_AGAIN)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}.", CONVERT_AGAIN)
    info = without_checksum(content, path, required="tables" in content, remedy=CONVERT_AGAIN)
    for name, kind in _ENTRIES.items():
        if name not in info:
            raise DataError(f"{path} lacks {name}.", CONVERT_AGAIN)
        if not isinstance(info[name], kind):
            raise DataError(f"{path} is damaged: {name} is {info[name]!r:.60}.", CONVERT_AGAIN)
    for name, shard in info["shards"].items():
        problem = name_problem(name)
        if problem is not None:
            raise DataError(f"{path} names the shard {name!r}: {problem}.", CONVERT_AGAIN)
        if not isinstance(shard, dict):
            raise DataError(f"{path} is damaged: the shard {name} is {shard!r:.60}.", CONVERT_AGAIN)
    return info


def read_dataset_info(root: Path) -> DatasetInfo:
    """Metadata of the dataset at `root`. Raises what `read_info` raises."""
    info = read_info(root)
    return DatasetInfo(
        root=root,
        kind=str(info["kind"]),
        num_samples=int(info["num_samples"]),
        fingerprint=str(info["fingerprint"]),
        fields=tuple(str(name) for name in info["fields"]),
        embodiment=embodiment_in(info, root),
        tables=tables_in(info, root),
        recorded=read_recorded(info.get(RECORDED), root / INFO_NAME),
        num_images=None if info.get("num_images") is None else int(info["num_images"]),
    )


def tables_in(info: dict[str, Any], root: Path) -> dict[str, StoredFile]:
    """Size and checksum of each table by name, from the content of `dataset.json`; empty for datasets from before they
    were stored.

    Raises:
        DataError: the entry is damaged.
    """
    files = stored_files(info.get("tables", ()), root / INFO_NAME, kind=DataError, remedy=CONVERT_AGAIN)
    return {file.name: file for file in files}


def embodiment_in(info: dict[str, Any], root: Path) -> Embodiment | None:
    """The robot of a dataset, from the content of its `dataset.json`; None for a dataset of questions.

    Raises:
        DataError: the description is damaged or of another schema version.
    """
    return read_embodiment(info.get(KEY), root / INFO_NAME) if info["kind"] == "robot" else None


def read_mixture_embodiment(roots: Iterable[Path]) -> Embodiment:
    """The embodiment that the robot datasets of a mixture share. LIBERO's if none of them is there: a recipe is planned
    before its data is converted, and a PokeVLM knows no robot.

    Raises:
        RecipeError: two datasets of robots that do not fit together; says what differs.
        DataError: a `dataset.json` that cannot be read.
    """
    infos = [read_dataset_info(root) for root in roots if is_stored(root, INFO_NAME)]
    described = [(str(info.root), info.embodiment) for info in infos if info.embodiment is not None]
    return common_embodiment(described) if described else LIBERO


def count_usable(info: DatasetInfo, split: str, chunk_length: int = 1) -> int:
    """Number of samples of a dataset that can be sampled (`usable`).

    Raises:
        DataError: a table is missing or damaged.
    """
    robot = info.kind == "robot"
    if split == ALL_SPLITS and (chunk_length == 1 or not robot):
        return info.num_samples
    if not robot:
        return int(usable(read_table(info.root, SAMPLES_NAME, info.tables, ["split"]), None, split).sum())
    samples = read_table(info.root, SAMPLES_NAME, info.tables, ["split", "episode", "frame"])
    episodes = read_table(info.root, EPISODES_NAME, info.tables, ["episode", "length"])
    return int(usable(samples, episodes, split, chunk_length).sum())


def usable(samples: pa.Table, episodes: pa.Table | None, split: str, chunk_length: int = 1) -> np.ndarray:
    """Mask (n,) bool of the rows that can be sampled: those of `split` ("all" for any) with a full chunk of actions.

    OFT drops the last K-1 frames of an episode as chunk starts instead of padding with repeated actions
    (prismatic/vla/datasets).
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    keep = np.ones(samples.num_rows, dtype=bool)
    if split != ALL_SPLITS:
        keep &= pc.call_function("equal", [samples["split"], pa.scalar(split)]).fill_null(False).to_numpy()
    if episodes is not None:
        numbers = pc.SetLookupOptions(episodes["episode"].combine_chunks())
        places = pc.call_function("index_in", [samples["episode"]], numbers)
        if places.null_count:
            raise DataError("A sample is of an episode that is not in the table of episodes.", CONVERT_AGAIN)
        lengths = episodes["length"].to_numpy()[places.to_numpy()]
        keep &= samples["frame"].to_numpy() + chunk_length <= lengths
    return keep


def read_table(
    root: Path, name: str, tables: Mapping[str, StoredFile], columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a parquet table of a dataset, or some of its columns, once its size and checksum are found to be those in
    `tables`. docs/data.md (Damage) says what that costs. `root` may be a URL.

    Raises:
        DataError: the file is missing or damaged, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = local_folder(root, INFO_NAME, name)
    path = root / name
    if name in tables:
        damage = file_damage(root, tables[name])
        if damage is not None:
            raise DataError(damage, CONVERT_AGAIN)
    elif not path.is_file():
        raise DataError(f"{path} is missing.", CONVERT_AGAIN)
    try:
        table = pq.read_table(path, columns=None if columns is None else list(columns))
        if name not in tables:
            table.validate(full=True)  # such as texts that are not UTF-8
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}).", CONVERT_AGAIN) from error
    return table
