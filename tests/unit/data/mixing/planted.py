"""Small converted question sets, and recipes that mix them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pokevla.cli.main import run
from tests.unit.data.curation.published import convert, save, talk, write_json

KILLER = """
import os, signal, sys
import pokevla.data.mixing.mixing, pokevla.data.mixing.drawing, pokevla.data.mixing.scanning, pokevla.data.writer
from pokevla.cli.main import run
pokevla.data.mixing.mixing.PART_QUESTIONS = 16
name, count = sys.argv[1], int(sys.argv[2])
owner = {"read_record": [pokevla.data.mixing.scanning, pokevla.data.mixing.drawing],
         "add_sample": [pokevla.data.writer.DatasetWriter],
         "write_json": [pokevla.data.mixing.writing]}[name]
left = [count]
for each in owner:
    def call(*arguments, real=getattr(each, name), **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    setattr(each, name, call)
sys.exit(run(["data", "mix", *sys.argv[3:]]))
"""
"""A command that dies at the Nth call of a function: its name, N, and the arguments of `data mix`."""
SIZES = {"robopoint": 48, "refspatial": 24, "llava": 40}


def write_sources(root: Path) -> None:
    """Three sets as published: points, of which some answers have many; choices, mostly A, and points of 8 questions
    about each image; yes and no, mostly yes, and the last two rows repeat the first."""
    rows = []
    for n in range(SIZES["robopoint"]):
        image = f"{'object_ref' if n % 3 else 'region_ref'}/p{n:03d}.png"
        save(root / "robopoint/images" / image, seed=n)
        points = ", ".join(f"(0.{50 + (n * 7 + k) % 900:03d}, 0.5{k:02d})" for k in range(1 + n % 14))
        rows.append({"id": image, "image": image, "conversations": talk(f"Locate cup {n}.", f"[{points}]")})
    write_json(root / "robopoint/robopoint_1432k.json", rows)
    rows, vacant = [], []
    for n in range(SIZES["refspatial"]):
        save(root / f"refspatial/3D/image/r{n}.png", seed=100 + n)
        turns = []
        for q in range(8):
            right = 0 if (n + q) % 4 else 1
            turns += [f"Which is nearer? (A) stool {q} (B) basket {n}", f"({'AB'[right]})"]
        shared = {"image": [f"r{n}.png"], "depth": [f"r{n}.png"]}
        rows.append({"id": f"c{n}", **shared, "conversations": talk(*turns)})
        vacant.append({"id": f"v{n}", **shared, "conversations": talk("Point at free floor.", "[(0.487, 0.811)]")})
    write_json(root / "refspatial/3D/choice_qa.json", rows)
    write_json(root / "refspatial/3D/vacant_qa.json", vacant)
    rows = []
    for row in range(SIZES["llava"]):
        n = row % (SIZES["llava"] - 2)
        image = f"coco/train2017/{n:012d}.jpg"
        save(root / "llava" / image, seed=300 + n)
        rows.append({"id": str(row), "image": image, "conversations": talk(f"Is it {n}?", "Yes" if n % 5 else "No")})
    write_json(root / "llava/llava_v1_5_mix665k.json", rows)


def convert_sources(raw: Path, out: Path, shard_samples: int) -> Path:
    """Convert all three with so many samples per shard."""
    for name in SIZES:
        convert(name, raw / name, out / name, "--shard-samples", str(shard_samples))
    return out


def write_recipe(path: Path, converted: Path, out: Path, **fields: Any) -> Path:
    """A recipe of the three sources; it is YAML as JSON is."""
    content = {
        "kind": "mixture",
        "name": "vlm",
        "output": str(out),
        "sources": [
            {"path": str(converted / "robopoint")},
            {"path": str(converted / "refspatial"), "caps": [{"by": "image", "at_most": 5}]},
            {"path": str(converted / "llava")},
        ],
        "categories": {"general": {"budget": 30}, "grounding": {"budget": 40}, "reasoning": {"budget": 50}},
        "shard_samples": 16,
        **fields,
    }
    path.write_text(json.dumps(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a mixture but its summary and report, which name the inputs' fingerprints."""
    about = ("mixture.json", "report.html")
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in about)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(capsys: pytest.CaptureFixture[str], recipe: Path, *options: str, code: int) -> str:
    """Run a recipe that is refused; returns the error."""
    capsys.readouterr()
    assert run(["data", "mix", str(recipe), "--workers", "0", *options]) == code
    return capsys.readouterr().err
