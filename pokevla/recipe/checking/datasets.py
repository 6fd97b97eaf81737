"""What `dataset.json` says, read without the data package: enough for plans and checks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.errors import DataError

INFO_NAME = "dataset.json"


@dataclass(frozen=True)
class DatasetInfo:
    """Light view of one dataset directory."""

    root: Path
    kind: str
    num_samples: int
    """All samples, whatever their split."""
    train_samples: int | None
    """Samples of split `train`, where the dataset says so."""
    fingerprint: str
    fields: tuple[str, ...] = ()
    """What every sample has, such as `base.jpg` or `base.mask.png`."""

    @property
    def has_masks(self) -> bool:
        """Whether robot samples carry a mask of each view (as `pokevla.data.dataset.Dataset` says it)."""
        return {"base.mask.png", "wrist.mask.png"} <= set(self.fields)


def read_dataset_info(root: Path) -> DatasetInfo:
    """Read `root/dataset.json`. DataError if the folder is no dataset or the file is damaged."""
    path = root / INFO_NAME
    try:
        info: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{root} is not a dataset: {INFO_NAME} is missing.", "Make one with: pokevla data convert"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON ({error}).", "Convert the dataset again.") from error
    if not isinstance(info, dict) or not {"kind", "num_samples", "fingerprint"} <= set(info):
        raise DataError(f"{path} lacks kind, num_samples or fingerprint.", "Convert the dataset again.")
    counts = info.get("splits")
    train = counts.get("train") if isinstance(counts, dict) else None
    fields = tuple(str(name) for name in info.get("fields") or ())
    return DatasetInfo(root, str(info["kind"]), int(info["num_samples"]), train, str(info["fingerprint"]), fields)
