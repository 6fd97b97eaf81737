"""RoboRefIt (luyh20/VL-Grasp): boxes of objects in clutter, and points inside their masks.

Only `train`: testA and testB are a benchmark. Boxes are compared with the masks, because those of some images are
exchanged (VL-Grasp, issue 3). It is published as a zip of folders, and on the Hub (luyh20/RoboRefIt) as parquet files
with pictures in the rows: columns `image`, `mask`, `bbox`, and `text` or `expression`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from pokevla.data.curation.drafts import Draft, ImageBytes, ImageFile, Row, RowFile
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.sources.conversations import existing
from pokevla.data.curation.texts import check_numbers
from pokevla.errors import DataError

_LISTS = ("roborefit_train.json", "refindoor_train_with_scene.json")
_TEXTS = ("text", "expression")


@dataclass(frozen=True)
class RoboRefIt:
    """The training split of RoboRefIt."""

    name: str = "roborefit"
    license: str = "CC-BY-4.0"
    version: int = 1
    box_sample: None = None

    def files(self, root: Path) -> Sequence[RowFile]:
        """The list of the training split, with or without `final_dataset/`; or its parquet files."""
        names = [(f"{top}train/{name}", "train") for top in ("final_dataset/", "") for name in _LISTS]
        if not any((root / name).exists() for name, _ in names):
            parquet = sorted(root.glob("**/*.parquet"))
            train = [path for path in parquet if _of_train(path.relative_to(root))]
            if train:
                return [RowFile(path, f"train{number:05d}") for number, path in enumerate(train)]
            if parquet:
                raise DataError(
                    f"{root} holds parquet files, but none of the training split: neither name nor folder begins with "
                    "`train`.",
                    "Download the training split too; testA and testB are a benchmark.",
                )
        return existing(root, names, "RoboRefIt")[:1]

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """A box, and points inside the mask."""
        value = row.value
        text = next((value[name] for name in _TEXTS if isinstance(value.get(name), str)), None)
        if text is None:
            raise Reject("row_layout", "no text")
        if not text.strip():
            raise Reject("text_empty")
        orig = {"num": value.get("num"), "scene": value.get("scene"), "raw_answer": value.get("bbox")}
        if row.file.endswith(".parquet"):
            image, mask = _content(value, "image"), _content(value, "mask")
            # Neighbouring rows are about one picture, which must stay in one split.
            orig["group"] = image.name
        else:
            image, mask = (_path(value, name, row.file) for name in ("rgb_path", "mask_path"))
        boxes = check_numbers([value.get("bbox")], 4)
        shared: dict[str, Any] = {
            "category": "grounding",
            "image": ImageFile(image) if isinstance(image, str) else image,
            "mask": mask,
            "scale": "pixel",
            "orig": orig,
        }
        target = text.strip().rstrip(".")
        yield Draft(**shared, task="referred_box", question=f'Where is the object meant by "{target}"?', kind="box",
                    boxes=boxes, suffix="box")  # fmt: skip
        # The points follow from the mask; the box is given so that a row with an exchanged box has neither.
        yield Draft(**shared, task="referred_point", question=f'Point at the object meant by "{target}".', kind="point",
                    boxes=boxes, suffix="point")  # fmt: skip


def _of_train(path: Path) -> bool:
    return any(part.startswith("train") for part in path.parts)


def _content(value: dict[str, Any], name: str) -> ImageBytes:
    """The picture in a column: bytes, or the Hub's pair of bytes and path."""
    if name not in value:
        raise Reject("row_layout", f"no {name}")
    picture = value[name]
    content = picture.get("bytes") if isinstance(picture, dict) else picture
    if not isinstance(content, bytes) or not content:
        raise Reject("image_missing" if name == "image" else "mask_missing", f"no bytes of {name}")
    path = picture.get("path") if isinstance(picture, dict) else None
    return ImageBytes(content, path if isinstance(path, str) and path else xxhash.xxh3_64_hexdigest(content))


def _path(value: dict[str, Any], name: str, file: str) -> str:
    """A path of a row below the source: with Windows separators, and beginning at `final_dataset/` wherever that is."""
    path = value.get(name)
    if not isinstance(path, str) or not path:
        raise Reject("row_layout", f"no {name}")
    path = path.replace("\\", "/")
    return path if file.startswith("final_dataset/") else path.removeprefix("final_dataset/")


ROBOREFIT = RoboRefIt()
