"""Video files of trials, and the names of what belongs to a trial."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pokevla.errors import NO_ROOM, DataError, DiskFullError
from pokevla.files.failures import CHECK_FOLDER, FREE_SPACE, free_bytes
from pokevla.files.writing import atomic_path

MAX_FRAMES = 60
"""Most frames of a video in TensorBoard, where it becomes a GIF (about 50 kB per frame at 2 x 256 px)."""

ENCODING_TIMEOUT_S = 600.0
"""A trial has at most some hundred pictures, which ffmpeg encodes in seconds."""
NOTHING_LEFT_BYTES = 1 << 20
"""If less than this is free, an encoder error without a reason counts as a full disk."""


def trial_name(key: tuple[str, str, int, int]) -> str:
    """Name of a trial's video and image, without suffix. `key` is (policy, suite, task index, initial state)."""
    policy, suite, task_index, init_state_index = key
    return f"{policy}-{_safe(suite)}-t{task_index}-i{init_state_index:02d}"


def _safe(suite: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", suite)


def trial_files(folder: Path, policy: str, suites: Sequence[str]) -> dict[str, Path]:
    """Videos or images of the trials of one policy in `folder`, by trial (`libero_object-t3-i07`), sorted.

    The name is compared as a whole: it may hold characters that mean something in a pattern. Evaluations of one suite
    used to leave the suite out of the name.
    """
    known = "|".join(_safe(suite) for suite in suites)
    name = re.compile(rf"{re.escape(policy)}-((?:(?:{known})-)?t\d+-i\d+)", re.ASCII)
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {match[1]: path for path in paths if (match := name.fullmatch(path.stem))}


def write_video(path: Path, frames: list[np.ndarray], frames_per_second: float) -> None:
    """Write H.264 in yuv420p, which every browser plays, complete or not at all.

    Frames are (H, W, 3) uint8; sides are padded to even numbers.

    Raises:
        DiskFullError: disk full.
        DataError: ffmpeg failed otherwise; has the last line that it printed.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    height, width = frames[0].shape[:2]
    down, right = height % 2, width % 2
    raw = b"".join(np.pad(frame, ((0, down), (0, right), (0, 0)), mode="edge").tobytes() for frame in frames)
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width + right}x{height + down}"]
    source += ["-r", f"{frames_per_second:g}", "-i", "-"]
    coding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "23", "-movflags", "+faststart"]
    with atomic_path(path) as temporary:
        # Not imageio_ffmpeg.write_frames: it ignores ffmpeg's exit code and lets it write to our stderr.
        command = [get_ffmpeg_exe(), "-v", "error", "-y", *source, *coding, str(temporary)]
        try:
            done = subprocess.run(command, input=raw, capture_output=True, timeout=ENCODING_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise DataError(
                f"Cannot write {path}: ffmpeg has not ended in {error.timeout:g} s.", CHECK_FOLDER
            ) from None
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            reason = words[-1] if words else f"ffmpeg ended with code {done.returncode}"
            if _is_full(done.returncode, words) or free_bytes(path) < NOTHING_LEFT_BYTES:
                raise DiskFullError(f"No room to write {path} ({reason}).", FREE_SPACE)
            raise DataError(f"Cannot write {path} ({reason}).", CHECK_FOLDER)


def _is_full(exit_code: int, words: list[str]) -> bool:
    """Whether ffmpeg failed because of a full disk (it prints that) or a limit on the file size (SIGXFSZ)."""
    reports_full_disk = any(os.strerror(code) in line for line in words for code in NO_ROOM)
    return reports_full_disk or exit_code == -signal.SIGXFSZ


def read_video(path: Path, max_frames: int = MAX_FRAMES) -> tuple[list[np.ndarray], float]:
    """At most `max_frames` evenly spaced frames (H, W, 3) uint8 of a video by `write_video`, and the frames per second
    at which they last as long as the video."""
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    description = next(reader)
    width, height = description["size"]
    frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    chosen = np.linspace(0, len(frames) - 1, min(max_frames, len(frames))).round().astype(int)
    return [frames[index] for index in chosen], description["fps"] * len(chosen) / len(frames)
