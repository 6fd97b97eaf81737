"""Decoding the members of a sample."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from pokevla.data.images.decoding import decode_image, decode_mask
from pokevla.errors import DataError


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
             for name, body in chunks]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _header(side: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "payload",
    [
        _png([_header(16)])[:-2] + b"xx",  # a wrong checksum: Pillow raises SyntaxError
        _png([_header(16), (b"IDAT", b"rubbish")]),
        _png([_header(60_000), (b"IDAT", b"")]),  # a bomb: 3.6 billion pixels
        b"",
    ],
    ids=["checksum", "rubbish", "bomb", "empty"],
)
def test_a_damaged_mask_is_named_by_its_sample(payload: bytes) -> None:
    with pytest.raises(DataError, match="sample k-7 has an image that cannot be decoded"):
        decode_mask(payload, "k-7")


def test_a_truncated_image_is_named_by_its_sample() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG")
    with pytest.raises(DataError, match="sample k-7"):
        decode_image(buffer.getvalue()[:300], "k-7")


def test_what_is_no_image_is_said_without_an_address_in_memory() -> None:
    with pytest.raises(DataError, match=r"cannot be decoded \(it is no PNG\)"):
        decode_mask(b"", "k-7")
    with pytest.raises(DataError, match=r"cannot be decoded \(it is no JPEG\)"):
        decode_image(b"GIF89a", "k-7")
