"""The toy arm's recordings as LeRobot datasets of format v2.1 and v3.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.recorded.episodes import CAMERAS, FPS, HEIGHT, JOINTS, WIDTH, Recorded, encode_png, write_video


def _features(images: str) -> dict[str, Any]:
    numbers = {"dtype": "float32", "shape": [8], "names": list(JOINTS)}
    cameras = {
        f"observation.images.{camera}": {
            "dtype": images,
            "shape": [HEIGHT, WIDTH, 3],
            "names": ["height", "width", "channels"],
        }
        for camera in CAMERAS
    }
    index = {
        name: {"dtype": "int64", "shape": [1], "names": None} for name in ("frame_index", "episode_index", "index")
    }
    return {
        "action": numbers,
        "observation.state": numbers,
        **cameras,
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **index,
        "task_index": {"dtype": "int64", "shape": [1], "names": None},
    }


def _table(episode: Recorded, start: int, tasks: list[str], images: str) -> pa.Table:
    count = len(episode.times)
    columns: dict[str, Any] = {
        "action": pa.array(list(episode.action), pa.list_(pa.float32(), 8)),
        "observation.state": pa.array(list(episode.state), pa.list_(pa.float32(), 8)),
    }
    if images == "image":
        for camera, pictures in episode.pictures.items():
            rows = [{"bytes": encode_png(image), "path": f"frame-{n:06d}.png"} for n, image in enumerate(pictures)]
            columns[f"observation.images.{camera}"] = pa.array(rows)
    columns |= {
        "timestamp": episode.times.astype(np.float32),
        "frame_index": np.arange(count),
        "episode_index": np.full(count, episode.number),
        "index": np.arange(start, start + count),
        "task_index": np.full(count, tasks.index(episode.task)),
    }
    return pa.table(columns)


def _info(version: str, episodes: list[Recorded], images: str, **paths: Any) -> dict[str, Any]:
    return {
        "codebase_version": version,
        "robot_type": "toy_arm",
        "total_episodes": len(episodes),
        "total_frames": sum(len(e.times) for e in episodes),
        "total_tasks": len({e.task for e in episodes}),
        "chunks_size": 1000,
        "fps": FPS,
        "splits": {"train": f"0:{len(episodes)}"},
        "features": _features(images),
        **paths,
    }


def write_lerobot_v21(root: Path, episodes: list[Recorded], images: str = "video") -> Path:
    """Format v2.1: one parquet file, and one video per camera, for each episode."""
    (root / "meta").mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    tasks = sorted({e.task for e in episodes})
    info = _info(
        "v2.1", episodes, images,
        data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    )  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    rows = [{"episode_index": e.number, "tasks": [e.task], "length": len(e.times)} for e in episodes]
    (root / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    lines = [json.dumps({"task_index": n, "task": task}) + "\n" for n, task in enumerate(tasks)]
    (root / "meta/tasks.jsonl").write_text("".join(lines), encoding="utf-8")
    start = 0
    for e in episodes:
        pq.write_table(_table(e, start, tasks, images), root / f"data/chunk-000/episode_{e.number:06d}.parquet")
        start += len(e.times)
        for camera, pictures in e.pictures.items() if images == "video" else ():
            write_video(root / f"videos/chunk-000/observation.images.{camera}/episode_{e.number:06d}.mp4", pictures)
    return root


def write_lerobot_v3(
    root: Path, episodes: list[Recorded], images: str = "video", per_file: int = 2, gop: int = 12
) -> Path:
    """Format v3.0: files with `per_file` episodes each. `gop`: images from one key frame to the next."""
    tasks = sorted({e.task for e in episodes})
    video_path = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
    rows, start = [], 0
    for number in range(0, len(episodes), per_file):
        group, index = episodes[number : number + per_file], number // per_file
        data = root / f"data/chunk-000/file-{index:03d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        tables, first = [], 0
        for e in group:
            tables.append(_table(e, start, tasks, images))
            row: dict[str, Any] = {
                "episode_index": e.number, "tasks": [e.task], "length": len(e.times), "data/chunk_index": 0,
                "data/file_index": index, "dataset_from_index": start, "dataset_to_index": start + len(e.times),
            }  # fmt: skip
            for camera in CAMERAS if images == "video" else ():
                prefix = f"videos/observation.images.{camera}"
                row |= {f"{prefix}/chunk_index": 0, f"{prefix}/file_index": index, f"{prefix}/from_timestamp":
                        first / FPS, f"{prefix}/to_timestamp": (first + len(e.times)) / FPS}  # fmt: skip
            start, first = start + len(e.times), first + len(e.times)
            rows.append(row)
        pq.write_table(pa.concat_tables(tables), data)
        for camera in CAMERAS if images == "video" else ():
            path = root / f"videos/observation.images.{camera}/chunk-000/file-{index:03d}.mp4"
            write_video(path, [image for e in group for image in e.pictures[camera]], gop=gop)
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    table = pa.table({"task_index": np.arange(len(tasks)), "__index_level_0__": tasks})
    pq.write_table(table, root / "meta/tasks.parquet")
    info = _info(
        "v3.0", episodes, images,
        data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        video_path=video_path if images == "video" else None,
    )  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info), encoding="utf-8")
    return root
