"""Small sources in the formats in which they are published. All names and numbers are invented."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pokevla.cli.main import run
from pokevla.data.dataset import CHECKS_NAME, open_dataset


def pixels(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """(height,width,3) uint8: a smooth image, another for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (4, 4, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, width: int = 64, height: int = 48, seed: int = 0, **options: Any) -> Path:
    """An image file; `options` are Pillow's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(width, height, seed)).save(path, **options)
    return path


def png_bytes(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """The bytes of a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(width, height, seed)).save(buffer, "PNG")
    return buffer.getvalue()


def write_json(path: Path, rows: Any) -> Path:
    """A JSON file as Python writes it, `NaN` included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def talk(*texts: str, image: bool = True) -> list[dict[str, str]]:
    """Turns of LLaVA's form, with `<image>` in the first."""
    turns = [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]
    if image:
        turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    return turns


def convert(name: str, source: Path, out: Path, *options: str, code: int = 0) -> dict[str, Any]:
    """Run `pokevla data convert`; returns `checks.json`, and rows and dataset under `rows` and `info`."""
    words = ["data", "convert", name, str(source), str(out), "--workers", "0", "--max-rejected", "1", *options]
    assert run(words) == code
    if code:
        return {}
    dataset = open_dataset(out)
    checks = json.loads((out / CHECKS_NAME).read_text())
    return {**checks, "rows": dataset.samples.to_pylist(), "info": dataset.info}


def reasons(checks: dict[str, Any], file: str) -> dict[int, str]:
    """Row -> code of what was left out of a file."""
    shown = checks["files"][file]["examples"]
    return {example["row"]: code for code, examples in shown.items() for example in examples}
