"""Small copies of VLM benchmarks in the layouts in which they are published, with matplotlib's photograph."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from safetensors.torch import save_file

from pokevla.model.building import build_vlm
from pokevla.model.presets import preset, to_dict
from pokevla.model.tokenizers.loading import MINI_TOKENIZER

WIDTH, HEIGHT = 640, 480
POINT_SUFFIX = " Your answer should be formatted as a list of tuples, i.e. [(x1, y1), (x2, y2), ...], between 0 and 1."


@cache
def photograph() -> Image.Image:
    """A photograph of 640 x 480 pixels."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as picture:
        return picture.convert("RGB").resize((WIDTH, HEIGHT))


def mask_of(box: tuple[int, int, int, int], value: int = 255) -> Image.Image:
    """A grey mask of 640 x 480 with `value` in x0, y0, x1, y1."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = value
    return Image.fromarray(mask)


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=95, compress_level=1)
    return buffer.getvalue()


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_where2place(root: Path, boxes: Sequence[tuple[int, int, int, int]]) -> Path:
    """`wentao-yuan/where2place`: a question about points and one about boxes for every mask."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rows = []
    for number, box in enumerate(boxes):
        (root / "images" / f"{number:02d}.jpg").write_bytes(encoded(photograph(), "JPEG"))
        mask_of(box).save(root / "masks" / f"{number:02d}.jpg", quality=100)
        text = f"<image>\nFind free space number {number}.{POINT_SUFFIX}"
        category = "unseen" if number % 3 == 0 else "seen"
        rows.append({"question_id": number, "image": f"{number:02d}.jpg", "text": text, "category": category})
    write_lines(root / "point_questions.jsonl", rows)
    write_lines(root / "bbox_questions.jsonl", rows)
    return root


def refspatial_rows(count: int) -> list[dict[str, Any]]:
    """Rows without pictures, as in `question.json`."""
    return [
        {
            "id": number, "object": f"the cup {number}", "prompt": f"Point at cup {number}.", "step": number % 3 + 1,
            "suffix": "Your answer should be formatted as a list of tuples, i.e. [(x1, y1)].", "category": "location",
            "rgb_path": f"image/{number}.png", "mask_path": f"mask/{number}.png",
        }
        for number in range(count)
    ]  # fmt: skip


def write_refspatial(root: Path, boxes: Sequence[tuple[int, int, int, int]], *, parquet: bool) -> Path:
    """`BAAI/RefSpatial-Bench` with the split location, as a folder or as parquet in `data/`."""
    rows = refspatial_rows(len(boxes))
    masks = [mask_of(box, value=1) for box in boxes]  # the scorer takes any value above 0
    if not parquet:
        folder = root / "Location"
        (folder / "image").mkdir(parents=True)
        (folder / "mask").mkdir()
        for row, mask in zip(rows, masks, strict=True):
            (folder / row["rgb_path"]).write_bytes(encoded(photograph()))
            mask.save(folder / row["mask_path"])
        (folder / "question.json").write_text(json.dumps(rows))
        return root
    (root / "data").mkdir(parents=True)
    columns = ("id", "object", "prompt", "suffix", "step")
    table = [
        {
            **{key: row[key] for key in columns},
            "image": {"bytes": encoded(photograph()), "path": f"{row['id']}.png"},
            "mask": {"bytes": encoded(mask.convert("RGB")), "path": f"{row['id']}.png"},
        }
        for row, mask in zip(rows, masks, strict=True)
    ]
    pq.write_table(pa.Table.from_pylist(table), root / "data" / "location-00000-of-00001.parquet")
    return root


def cvbench_row(number: int, source: str, choices: Sequence[str], answer: str) -> dict[str, Any]:
    """A row of CV-Bench without its picture."""
    half, task = ("3D", "Depth") if source == "Omni3D" else ("2D", "Count")
    options = " ".join(f"({chr(65 + place)}) {choice}" for place, choice in enumerate(choices))
    return {
        "idx": number, "type": half, "task": task, "question": f"Which is it, {number}?", "choices": list(choices),
        "answer": f"({answer})", "prompt": f"Which is it, {number}? Select from the following choices. {options}",
        "filename": f"img/{half}/{number}.png", "source": source, "source_filename": f"{source}-{number}.png",
    }  # fmt: skip


def write_cvbench(root: Path, rows: Sequence[dict[str, Any]], *, parquet: bool) -> Path:
    """`nyu-visionx/CV-Bench`: 2D and 3D halves, as parquet or as JSON lines with pictures below `img/`."""
    root.mkdir(parents=True)
    for half in ("2D", "3D"):
        members = [row for row in rows if row["type"] == half]
        if parquet:
            content = [{**row, "image": {"bytes": encoded(photograph()), "path": None}} for row in members]
            pq.write_table(pa.Table.from_pylist(content), root / f"test_{half.lower()}.parquet")
            continue
        (root / "img" / half).mkdir(parents=True)
        for row in members:
            (root / row["filename"]).write_bytes(encoded(photograph()))
        write_lines(root / f"test_{half.lower()}.jsonl", members)
    return root


def write_tiny_vlm(folder: Path) -> Path:
    """An exported PokeVLM of preset `tiny` with random weights."""
    folder.mkdir(parents=True)
    config = preset("tiny").vlm
    model = build_vlm(config, seed=3)
    weights = {name: value.clone() for name, value in model.state_dict().items() if not name.endswith("lm_head.weight")}
    save_file(weights, folder / "model.safetensors")
    shutil.copytree(MINI_TOKENIZER, folder / "tokenizer", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    content = {"schema_version": 1, "kind": "pokevlm", "model": to_dict(config), "system_prompt": None}
    (folder / "config.json").write_text(json.dumps(content))
    return folder
