"""RoboRefIt (luyh20/VL-Grasp): boxes of objects in clutter, and points inside their masks.

Only `train`: testA and testB are a benchmark. Boxes are compared with the masks, because those of some images are
exchanged (VL-Grasp, issue 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pokevla.data.curation.drafts import Draft, ImageFile, Row, RowFile
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.sources.conversations import existing
from pokevla.data.curation.texts import check_numbers

_LISTS = ("roborefit_train.json", "refindoor_train_with_scene.json")


@dataclass(frozen=True)
class RoboRefIt:
    """The training split of RoboRefIt."""

    name: str = "roborefit"
    license: str = "CC-BY-4.0"
    version: int = 1
    box_sample: None = None

    def files(self, root: Path) -> Sequence[RowFile]:
        """The list of the training split, with or without `final_dataset/`."""
        names = [(f"{top}train/{name}", "train") for top in ("final_dataset/", "") for name in _LISTS]
        return existing(root, names, "RoboRefIt")[:1]

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """A box, and points inside the mask."""
        value = row.value
        text = value.get("text")
        if not isinstance(text, str):
            raise Reject("row_layout", "no text")
        if not text.strip():
            raise Reject("text_empty")
        image, mask = (_path(value, name, row.file) for name in ("rgb_path", "mask_path"))
        boxes = check_numbers([value.get("bbox")], 4)
        orig = {"num": value.get("num"), "scene": value.get("scene"), "raw_answer": value.get("bbox")}
        shared: dict[str, Any] = {
            "category": "grounding",
            "image": ImageFile(image),
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


def _path(value: dict[str, Any], name: str, file: str) -> str:
    """A path of a row below the source: with Windows separators, and beginning at `final_dataset/` wherever that is."""
    path = value.get(name)
    if not isinstance(path, str) or not path:
        raise Reject("row_layout", f"no {name}")
    path = path.replace("\\", "/")
    return path if file.startswith("final_dataset/") else path.removeprefix("final_dataset/")


ROBOREFIT = RoboRefIt()
