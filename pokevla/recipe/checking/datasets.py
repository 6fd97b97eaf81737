"""Metadata of a dataset directory: `dataset.json`, and the number of samples that can be trained on.

The only reader of `dataset.json`. Tables are read, and pyarrow imported, only to count samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.embodiment.mixing import common_embodiment
from pokevla.embodiment.reading import KEY, read_embodiment
from pokevla.errors import DataError
from pokevla.files.labels import name_problem

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

SCHEMA_VERSION = 1
INFO_NAME = "dataset.json"
SAMPLES_NAME = "samples.parquet"
EPISODES_NAME = "episodes.parquet"
ALL_SPLITS = "all"


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

    @property
    def num_views(self) -> int:
        """Images of one sample."""
        return self.embodiment.num_views if self.embodiment is not None else 1

    @property
    def has_masks(self) -> bool:
        """Whether robot samples carry a mask of each view."""
        return self.embodiment is not None and self.embodiment.mask_members <= set(self.fields)


def read_info(root: Path) -> dict[str, Any]:
    """Content of `root/dataset.json`, checked.

    Raises:
        DataError: the folder is not a dataset, or the file is damaged or has another schema version.
    """
    path = root / INFO_NAME
    try:
        info: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{root} is not a dataset: {INFO_NAME} is missing.", "Make one with: pokevla data convert"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}).", "Convert the dataset again.") from error
    version = info.get("schema_version") if isinstance(info, dict) else None
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has schema version {version}, this code reads {SCHEMA_VERSION}.", "Convert the dataset again."
        )
    missing = {"kind", "fingerprint", "num_samples", "fields", "shards"} - set(info)
    if missing:
        raise DataError(f"{path} lacks {', '.join(sorted(missing))}.", "Convert the dataset again.")
    for name in info["shards"]:
        problem = name_problem(name)
        if problem is not None:
            raise DataError(f"{path} names the shard {name!r}: {problem}.", "Convert the dataset again.")
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
    )


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
    infos = [read_dataset_info(root) for root in roots if (root / INFO_NAME).is_file()]
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
        return int(usable(read_table(info.root / SAMPLES_NAME, ["split"]), None, split).sum())
    samples = read_table(info.root / SAMPLES_NAME, ["split", "episode", "frame"])
    episodes = read_table(info.root / EPISODES_NAME, ["episode", "length"])
    return int(usable(samples, episodes, split, chunk_length).sum())


def usable(samples: pa.Table, episodes: pa.Table | None, split: str, chunk_length: int = 1) -> np.ndarray:
    """Mask (n,) bool of the rows that can be sampled: those of `split` ("all" for any) with a full chunk of actions.

    OFT drops the last K-1 frames of an episode as chunk starts instead of padding with repeated actions
    (prismatic/vla/datasets).
    """
    import numpy as np

    keep = np.ones(samples.num_rows, dtype=bool)
    if split != ALL_SPLITS:
        keep &= np.array([name == split for name in samples["split"].to_pylist()], dtype=bool)
    if episodes is not None:
        length_of = dict(zip(episodes["episode"].to_pylist(), episodes["length"].to_pylist(), strict=True))
        lengths = np.array([length_of[e] for e in samples["episode"].to_pylist()], dtype=np.int64)
        keep &= samples["frame"].to_numpy() + chunk_length <= lengths
    return keep


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a parquet table, or some of its columns.

    Raises:
        DataError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"{path} is missing.", "Convert the dataset again.")
    try:
        return pq.read_table(path, columns=None if columns is None else list(columns))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}).", "Convert the dataset again.") from error
