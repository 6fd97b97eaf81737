"""Opening the images of a source: complete, of a sensible size, 8-bit RGB, and stored as JPEG."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pokevla.data.curation.drafts import ImageBytes, ImageFile, VideoFrame
from pokevla.data.curation.rules import Reject
from pokevla.data.images.picture_hash import pixels_sha256
from pokevla.data.recordings.lerobot.video import import_av
from pokevla.errors import DataError
from pokevla.files.labels import lies_within
from pokevla.files.texts import read_bytes

MAX_PIXELS = 64 << 20
MAX_FILE_BYTES = 128 << 20
MIN_SIDE = 32
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation, as in Pillow's ImageOps.exif_transpose."""
# What Pillow raises for damaged files: SyntaxError for a broken PNG.
UNDECODABLE = (OSError, SyntaxError, ValueError, IndexError, OverflowError, struct.error, zlib.error)


@dataclass(frozen=True)
class Opened:
    """An image as it is stored."""

    jpeg: bytes
    width: int
    height: int
    """Of the source image: what pixel coordinates are relative to."""
    sha256: str
    """Of the decoded RGB pixels, to find duplicates."""
    flags: tuple[str, ...]
    turned: bool
    """Whether EXIF data turn the image. It was turned; width and height are those afterwards."""


def find_image(root: Path, image: ImageFile) -> Path:
    """The file of an image. Raises Reject: `image_path`, `image_missing`."""
    for name in (image.path, *image.alternatives):
        name = name.replace("\\", "/").removeprefix("./")
        if not lies_within(name):
            raise Reject("image_path", name[:80])
        try:
            if (root / name).is_file():
                return root / name
        except OSError as error:  # a name that is too long
            raise Reject("image_missing", f"{name[:80]}: {error.strerror}") from error
    raise Reject("image_missing", image.path[:200])


def open_image(root: Path, image: ImageFile | ImageBytes | VideoFrame, max_side: int, quality: int) -> Opened:
    """Open, check and encode an image. A JPEG in RGB that is small enough stays as it is.

    Args:
        max_side: larger images are reduced to this side in pixels, their aspect ratio kept.

    Raises Reject with a code of images or videos.
    """
    if isinstance(image, VideoFrame):
        pixels = Image.fromarray(video_frame(root, image))
        return _finish(pixels, None, [], False, max_side, quality)
    if isinstance(image, ImageBytes):
        content, name = image.content, image.name
    else:
        path = find_image(root, image)
        name = image.path
        try:
            content = read_bytes(path, max_bytes=MAX_FILE_BYTES)
        except DataError as error:
            code = "image_bomb" if "more than" in error.message else "image_corrupt"
            raise Reject(code, name) from error
    return decode_image(content, name, max_side, quality)


def decode_image(content: bytes, name: str, max_side: int, quality: int) -> Opened:
    """As `open_image`, of the bytes of a file."""
    if len(content) > MAX_FILE_BYTES:
        raise Reject("image_bomb", name)
    flags: list[str] = []
    if content.startswith(_PNG):
        stripped = _without_texts(content)
        if len(stripped) < len(content) - (1 << 16):
            flags.append("png_text_chunk")
        content = stripped
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Reject("image_bomb", f"{name}: {image.width}x{image.height}")
        if image.format in ("GIF", "PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
            raise Reject("image_gif_or_animated", name)
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Image.DecompressionBombError as error:
        raise Reject("image_bomb", name) from error
    except UNDECODABLE as error:
        raise Reject("image_corrupt", f"{name}: {str(error)[:80]}") from error
    turn = _TURNS.get(orientation)
    turned = turn is not None
    keep = image.format == "JPEG" and image.mode == "RGB" and not turned and max(image.size) <= max_side
    if image.format == "GIF":
        flags.append("gif")
    elif image.mode != "RGB":
        flags.append("image_mode")
    if turned:
        flags.append("exif_turned")
    rgb = _rgb(image).transpose(turn) if turn is not None else _rgb(image)
    return _finish(rgb, content if keep else None, flags, turned, max_side, quality)


def _finish(
    rgb: Image.Image, keep: bytes | None, flags: list[str], turned: bool, max_side: int, quality: int
) -> Opened:
    width, height = rgb.size
    if min(width, height) < MIN_SIDE:
        raise Reject("image_too_small", f"{width}x{height}")
    digest = pixels_sha256(rgb)
    if keep is None:
        if max(width, height) > max_side:
            rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        buffer = io.BytesIO()
        rgb.save(buffer, "JPEG", quality=quality, subsampling=0)
        keep = buffer.getvalue()
    return Opened(keep, width, height, digest, tuple(flags), turned)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit: Pillow would cut off at 255
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _without_texts(content: bytes) -> bytes:
    """A PNG without its text chunks, for which Pillow has limits. A damaged one is returned as far as it goes."""
    parts, position = [_PNG], len(_PNG)
    while position + 12 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4])
        if content[position + 4 : position + 8] not in _PNG_TEXTS:
            parts.append(content[position:end])
        position = end
    return b"".join(parts)


def video_frame(root: Path, frame: VideoFrame) -> np.ndarray:
    """(H,W,3) uint8: one frame of a video. Raises Reject: `image_path`, `video_missing`, `video_corrupt`.

    Raises:
        EnvironmentSetupError: PyAV is not installed.
    """
    name = frame.path.replace("\\", "/")
    if not lies_within(name):
        raise Reject("image_path", name[:80])
    path = root / name
    if not path.is_file():
        raise Reject("video_missing", name)
    av = import_av()
    try:
        with av.open(str(path)) as container:
            container.streams.video[0].codec_context.thread_count = 1
            count = 1 if frame.place == "first" else sum(1 for _ in container.decode(video=0))
            wanted = {"first": 0, "middle": count // 2, "last": count - 1}[frame.place]
            container.seek(0)
            for number, image in enumerate(container.decode(video=0)):
                if number == wanted and not image.is_corrupt:
                    return image.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise Reject("video_corrupt", f"{name}: {str(error)[:80]}") from error
    raise Reject("video_corrupt", f"{name}: no frame")
