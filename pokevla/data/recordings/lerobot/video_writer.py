"""Videos of an export: H.264 with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import numpy as np

from pokevla.data.recordings.lerobot.video import import_av
from pokevla.errors import DataError

CODEC, PIXELS = "libx264", "yuv420p"
OPTIONS = {"g": "2", "crf": "18"}
"""A key frame every second image, as LeRobot's own (configs/video.py), so that any image is found fast; crf 18 is
nearly without loss."""


class VideoWriter:
    """One video. A context manager; `close` may come earlier."""

    def __init__(self, path: Path, size: tuple[int, int], rate_hz: float) -> None:
        """`size` is (height, width). Raises DataError for an odd one, which H.264 with this kind of pixels lacks."""
        if size[0] % 2 or size[1] % 2:
            raise DataError(
                f"images of {size} pixels cannot be a video: both sides should be even.", "Pass --images image."
            )
        self._av = import_av()
        self._container = self._av.open(str(path), "w")
        self._stream = self._container.add_stream(
            CODEC, rate=Fraction(rate_hz).limit_denominator(1000), options=OPTIONS
        )
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = PIXELS
        self._is_open = True

    @staticmethod
    def info(size: tuple[int, int], rate_hz: float) -> dict[str, Any]:
        """What LeRobot's metadata say about such a video."""
        return {
            "video.height": size[0],
            "video.width": size[1],
            "video.codec": "h264",
            "video.pix_fmt": PIXELS,
            "video.is_depth_map": False,
            "video.fps": rate_hz,
            "video.channels": 3,
            "has_audio": False,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None:
            self.close()
        elif self._is_open:
            self._container.close()
            self._is_open = False

    def add(self, pixels: np.ndarray) -> None:
        """Append an image (H,W,3) uint8."""
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        if self._is_open:
            self._container.mux(self._stream.encode())
            self._container.close()
            self._is_open = False
