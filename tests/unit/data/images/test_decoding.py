"""Decoding takes shortcuts, and gives what Pillow gives."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pokevla.data.images import decoding
from pokevla.data.images.decoding import decode_image, decode_mask
from pokevla.data.sources.images import encode_mask
from pokevla.errors import DataError


def _picture(width: int, height: int, seed: int = 0) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _bytes(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _by_pillow(payload: bytes, form: str) -> np.ndarray:
    mode = "RGB" if form == "JPEG" else "1"
    return np.asarray(Image.open(io.BytesIO(payload), formats=(form,)).convert(mode))


def _outcome(decode: Any, payload: bytes) -> Any:
    """(size, pixels) or the message of the error."""
    try:
        image = decode(payload)
    except DataError as error:
        return str(error)
    return image.size, np.asarray(image).tobytes()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 30, 75, 95, 100]), st.integers(0, 2), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_a_jpeg_has_the_pixels_that_pillow_gives(
    width: int, height: int, quality: int, subsampling: int, progressive: bool, grey: bool
) -> None:
    image = _picture(width, height).convert("L" if grey else "RGB")
    payload = _bytes(image, quality=quality, subsampling=subsampling, progressive=progressive)
    decoded = decode_image(payload, "k")
    assert decoded.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(decoded), _by_pillow(payload, "JPEG"))


def test_jpegs_of_other_kinds_have_the_pixels_that_pillow_gives() -> None:
    image = _picture(50, 40)
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation: rotate
    for payload in (
        _bytes(image.convert("CMYK")),
        _bytes(image, keep_rgb=True),
        _bytes(image, exif=turned),
        _bytes(image, comment=b"c" * 9000),
        _bytes(image, restart_marker_blocks=2),
        _bytes(image) + b"rubbish",
    ):
        np.testing.assert_array_equal(np.asarray(decode_image(payload, "k")), _by_pillow(payload, "JPEG"))


def test_a_large_image_is_decoded() -> None:
    payload = _bytes(_picture(2600, 2100))  # more than Pillow keeps in one piece of memory
    np.testing.assert_array_equal(np.asarray(decode_image(payload, "k")), _by_pillow(payload, "JPEG"))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_damaged_file_gives_what_pillow_alone_gives(form: str) -> None:
    rng = random.Random(3)
    mask = np.asarray(_picture(60, 44).convert("L")) > 128
    whole = _bytes(_picture(60, 44), quality=60) if form == "JPEG" else encode_mask(mask)
    decode = decode_image if form == "JPEG" else decode_mask
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 4))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        cut = bytes(damaged[: rng.choice((len(damaged), rng.randrange(len(damaged))))])
        alone = _outcome(lambda content: decoding._decode(content, "k", form), cut)
        assert _outcome(lambda content: decode(content, "k"), cut) == alone
        refused += isinstance(alone, str)
    assert 0 < refused < 400


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 255))
def test_a_mask_has_the_pixels_that_pillow_gives(width: int, height: int, level: int) -> None:
    inside = np.asarray(_picture(width, height).convert("L")) > level
    decoded = decode_mask(encode_mask(inside), "k")
    assert decoded.mode == "1"
    np.testing.assert_array_equal(np.asarray(decoded), inside)


def test_masks_of_other_kinds_have_the_pixels_that_pillow_gives() -> None:
    inside = np.asarray(_picture(33, 21).convert("L")) > 128
    mask = Image.fromarray(inside).convert("L")
    for payload in (
        _bytes(mask, "PNG"),
        _bytes(mask.convert("1"), "PNG", dpi=(72, 72)),
        _bytes(mask.convert("P"), "PNG"),
        _bytes(mask.convert("1"), "PNG", transparency=0),
    ):
        np.testing.assert_array_equal(np.asarray(decode_mask(payload, "k")), _by_pillow(payload, "PNG"))


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.integers(1, 80), st.integers(0, 2), st.booleans())
def test_a_reduced_image_is_what_pillow_drafts(
    width: int, height: int, need: int, subsampling: int, grey: bool
) -> None:
    payload = _bytes(_picture(width, height).convert("L" if grey else "RGB"), subsampling=subsampling)
    factor = next((each for each in (8, 4, 2) if min(-(-width // each), -(-height // each)) >= need), 1)
    drafted = Image.open(io.BytesIO(payload))
    drafted.draft(None, (width // factor, height // factor))  # it rounds the sides up, but not its question
    decoded = decode_image(payload, "k", need)
    assert decoded.size == (-(-width // factor), -(-height // factor)) == drafted.size
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(drafted.convert("RGB")))


def test_reduction_changes_a_resized_photograph_little() -> None:
    fine = np.random.default_rng(0).normal(0, 6, (480, 640, 3)) + np.asarray(_picture(640, 480))
    payload = _bytes(Image.fromarray(fine.clip(0, 255).astype(np.uint8)), quality=90)
    whole, reduced = (
        np.asarray(decode_image(payload, "k", need).resize((224, 224), Image.Resampling.BICUBIC)).astype(int)
        for need in (None, 224.0)
    )
    assert 0 < np.abs(whole - reduced).mean() < 1
