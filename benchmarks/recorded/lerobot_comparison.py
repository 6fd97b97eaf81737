"""Our exports in the `lerobot` package, and our reader beside its own. It is installed in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recorded.episodes import picture, record
from benchmarks.recorded.lerobot import write_lerobot_v3
from benchmarks.recorded.swinging import swing
from benchmarks.reporting import row
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.images.decoding import decode_image
from pokevla.data.reader import ShardReader
from pokevla.data.recordings.conversion import RecordingSettings, convert_recordings
from pokevla.data.recordings.fields import Options
from pokevla.data.recordings.lerobot.choice import choose
from pokevla.data.recordings.lerobot.export import Images, export_lerobot
from pokevla.data.recordings.lerobot.metadata import read_metadata
from pokevla.data.recordings.lerobot.source import LeRobotSource

READER = Path(__file__).with_name("lerobot_reader.py")
TOLERANCE = {"video": 6.0, "image": 0.5}
"""Largest difference of an image's mean colour, of 255: H.264 is not exact, a JPEG decoder nearly."""
ROUNDS = 2


def compare_exports(python: Path, work: Path) -> list[dict[str, Any]]:
    """Rows `export/KIND`. Raises RuntimeError if the package reads a frame that is not what was exported."""
    source = write_lerobot_v3(work / "source", [swing(number) for number in range(6)], "image", per_file=3)
    ours = _convert(source, work / "ours")
    kinds: tuple[Images, ...] = ("video", "image")
    return [_export_row(python, ours, work / kind, kind) for kind in kinds]


def _export_row(python: Path, ours: Dataset, folder: Path, kind: Images) -> dict[str, Any]:
    export_lerobot(ours, folder, kind)
    expected = folder.with_suffix(".npz")
    np.savez(expected, allow_pickle=False, tolerance=TOLERANCE[kind], **_frames(ours))
    found = json.loads(_lerobot(python, "check", str(folder), str(expected)).splitlines()[-1])
    if found["wrong"] or found["frames"] != found["expected"]:
        raise RuntimeError(f"lerobot reads the export with {kind}s wrongly: {found}")
    return row(f"export/{kind}", found["right"], "frames", "lerobot", found["right"] / found["expected"])


def _frames(dataset: Dataset) -> dict[str, np.ndarray]:
    """Arrays by frame; images as their mean colours."""
    robot, episodes = dataset.embodiment, dataset.episodes
    if robot is None or episodes is None:
        raise RuntimeError("the dataset has no robot")
    rows = episodes.to_pylist()
    arrays = {name: np.concatenate([np.asarray(each[name]) for each in rows]) for name in ("actions", "proprio")}
    arrays["proprio"] = arrays["proprio"].astype(np.float32)
    arrays["instructions"] = np.concatenate([np.full(each["length"], each["instruction"]) for each in rows])
    reader = ShardReader(dataset)
    members = [reader.read(number) for number in range(dataset.samples.num_rows)]
    for view in robot.views:
        images = (np.asarray(decode_image(each[f"{view}.jpg"], view)) for each in members)
        arrays[f"mean_{view}"] = np.stack([image.mean(axis=(0, 1)) for image in images])
    return arrays


def compare_readers(python: Path, work: Path, height: int = 240, width: int = 320) -> list[dict[str, Any]]:
    """Rows `convert/lerobot`: our reader and the package's on the same H.264 videos, which take turns. Once with a key
    frame every second image, as LeRobot's recorder writes them for its access at random, once every twelfth."""
    episodes = [record(number, 60) for number in range(2)]
    for place, camera in enumerate(episodes[0].pictures):
        for e in episodes:
            e.pictures[camera] = [picture(place, e.number, frame, height, width) for frame in range(60)]
    return [
        _reader_row(python, write_lerobot_v3(work / f"gop{gop}", episodes, gop=gop), name)
        for name, gop in (("convert/lerobot", 2), ("convert/lerobot_gop12", 12))
    ]


def _reader_row(python: Path, root: Path, name: str) -> dict[str, Any]:
    source = _source(root)
    command = [*_command(python), "read", str(root)]
    best = {"ours": float("inf"), "lerobot": float("inf")}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=_environment()
    ) as theirs:
        if theirs.stdin is None or theirs.stdout is None:
            raise RuntimeError("the reader has no pipes")
        images = 3 * json.loads(theirs.stdout.readline())["frames"]
        for number in range(ROUNDS + 1):
            theirs.stdin.write("read\n")
            theirs.stdin.flush()
            seconds = {"lerobot": json.loads(theirs.stdout.readline())["seconds"], "ours": _read_all(source)}
            if number:  # the first round warms up
                best = {name: min(best[name], seconds[name]) for name in best}
        theirs.stdin.close()
    return row(name, images / best["ours"], "images/CPU s", "lerobot", best["lerobot"] / best["ours"],
               lerobot_images_per_cpu_s=images / best["lerobot"])  # fmt: skip


def _read_all(source: LeRobotSource) -> float:
    """CPU seconds in which our reader decodes every image of every episode."""
    begun = time.process_time()
    with source.opened() as read:
        for number in range(source.num_episodes):
            for images in read(number).frames.values():
                for _ in images:
                    pass
    return time.process_time() - begun


def _source(root: Path) -> LeRobotSource:
    metadata = read_metadata(root)
    return LeRobotSource(metadata, choose(metadata, Options(grippers=["gripper.pos=1,0"]), lambda note: None))


def _convert(root: Path, out: Path) -> Dataset:
    settings = RecordingSettings(out, image_size=64, val_fraction=0.3)
    return open_dataset(convert_recordings(_source(root), settings))


def _lerobot(python: Path, *words: str) -> str:
    done = subprocess.run(
        [*_command(python), *words], capture_output=True, text=True, encoding="utf-8", check=False, env=_environment()
    )
    if done.returncode:
        raise RuntimeError(f"lerobot_reader.py {words[0]} failed:\n{done.stderr}")
    return done.stdout


def _command(python: Path) -> list[str]:
    return [str(python), "-P", str(READER)]  # -P: this folder's lerobot.py is not the package


def _environment() -> dict[str, str]:
    """Without our PYTHONPATH, and without the network."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
