"""RoboSpatial (NVlabs/RoboSpatial): what its generator writes; the training questions themselves are not published.

Read are `*.json` lists of questions below `qa/`, and per-image `*.annotations.json` below `annotations/`, from which
boxes of named objects are taken. Images lie below `images/`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from pokevla.data.curation.drafts import Draft, ImageFile, Row, RowFile
from pokevla.data.curation.rules import Reject
from pokevla.data.curation.sources.conversations import existing
from pokevla.data.curation.texts import check_numbers, read_tuples
from pokevla.errors import DataError

_YES_NO = {"yes": 0, "no": 1}
_TASKS = {"pairwise_positional": "relation", "pairwise_compatibility": "compatibility"}


@dataclass(frozen=True)
class RoboSpatial:
    """Output of RoboSpatial's generator."""

    name: str = "robospatial"
    license: str = "generator: NVIDIA non-commercial; scans: ScanNet, 3RScan, Matterport3D, ARKitScenes terms"
    version: int = 1
    box_sample: None = None

    def files(self, root: Path) -> Sequence[RowFile]:
        """Lists of questions, and folders of annotations (one for each scene)."""
        existing(root, [("qa", ""), ("annotations", "")], "RoboSpatial's generator")
        lists = [RowFile(path, "qa") for path in sorted((root / "qa").glob("**/*.json"))]
        scenes = sorted({path.parent for path in (root / "annotations").glob("**/*.annotations.json")})
        files = [*lists, *(RowFile(folder, "boxes") for folder in scenes)]
        if not files:
            raise DataError(f"{root} has no JSON in qa/ or annotations/.", "Run RoboSpatial's generator.")
        return [RowFile(file.path, f"{file.subset}{number:05d}") for number, file in enumerate(files)]

    def drafts(self, row: Row) -> Iterable[Draft | Reject]:
        """A question, or the boxes of an image."""
        image = row.value.get("image_path")
        if not isinstance(image, str):
            raise Reject("row_layout", "no image_path")
        group = "/".join(image.split("/")[:-1])  # neighbouring frames of a scan show the same
        if "qa_type" in row.value:
            yield _question(row, ImageFile(f"images/{image}", (image,)), group)
        else:
            yield from _boxes(row, ImageFile(f"images/{image}", (image,)), group)


def _question(row: Row, image: ImageFile, group: str) -> Draft:
    value = row.value
    question, answer, kind = value.get("question"), value.get("answer"), value["qa_type"]
    if not isinstance(question, str) or not isinstance(answer, str):
        raise Reject("row_layout", "no question or answer")
    orig = {"group": group, "qa_type": kind, "raw_answer": answer}
    shared: dict[str, Any] = {"category": "grounding", "image": image, "orig": orig}
    if not question.strip() or not answer.strip():
        raise Reject("text_empty")
    if kind == "unary_spatial_context":
        points = read_tuples(answer, 2)
        return Draft(**shared, task="freespace_point", question=question, kind="point", points=points)
    if kind not in _TASKS:
        raise Reject("other_answer", str(kind)[:40])
    word = answer.strip().rstrip(".").lower()
    if word not in _YES_NO:
        raise Reject("choice_not_in_options", answer[:40])
    first = xxhash.xxh3_64_intdigest(f"{row.file} {row.number}".encode()) % 2  # letters are drawn evenly
    words = ("yes", "no") if first == 0 else ("no", "yes")
    letter = "AB"[words.index(word)]
    options = f"(A) {words[0]} (B) {words[1]}"
    shared["category"] = "reasoning"
    return Draft(**shared, task=_TASKS[kind], question=f"{question.strip()} {options}", kind="choice", text=letter,
                 options=("A", "B"))  # fmt: skip


def _boxes(row: Row, image: ImageFile, group: str) -> Iterable[Draft | Reject]:
    objects = row.value.get("object_grounding")
    if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
        raise Reject("row_layout", "no object_grounding")
    names = Counter(str(each.get("name")) for each in objects)
    for number, each in enumerate(objects):
        try:
            name = each.get("name")
            if not isinstance(name, str) or not name.strip():
                raise Reject("text_empty", "name")
            if names[name] > 1:
                raise Reject("other_answer", f"several {name}")
            yield Draft(
                category="grounding",
                task="object_box",
                question=f"Where is the {name.strip().replace('_', ' ')}?",
                image=image,
                kind="box",
                boxes=check_numbers([each.get("bbox")], 4),
                scale="pixel",
                suffix=f"o{number:03d}",
                orig={"group": group, "category": each.get("category"), "raw_answer": each.get("bbox")},
            )
        except Reject as reject:
            yield reject


ROBOSPATIAL = RoboSpatial()
