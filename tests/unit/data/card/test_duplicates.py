"""Equal and nearly equal images."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pokevla.data.card.duplicates import NEAR, EqualImages, near_pairs
from pokevla.data.images.picture_hash import picture_hash


def smooth(seed: int, side: int = 96) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def bits(one: Image.Image, other: Image.Image) -> int:
    return int(np.bitwise_count(picture_hash(one) ^ picture_hash(other)).sum())


def test_the_hash_of_a_gradient_is_known() -> None:
    ramp = np.tile(np.arange(17, dtype=np.uint8) * 10, (16, 1))
    assert np.unpackbits(picture_hash(Image.fromarray(ramp))).tolist() == [1] * 256
    assert not picture_hash(Image.fromarray(ramp[:, ::-1].copy())).any()
    assert not picture_hash(Image.new("RGB", (40, 30), "grey")).any()


def test_compression_scaling_and_brightness_change_few_bits_another_picture_many() -> None:
    for seed in range(8):
        picture = smooth(seed)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=60)
        brighter = Image.fromarray((np.asarray(picture) * 0.8 + 20).astype(np.uint8))
        for same in (Image.open(buffer), picture.resize((61, 61), Image.Resampling.BICUBIC), brighter):
            assert bits(picture, same) <= NEAR
        assert bits(picture, smooth(seed + 100)) > 5 * NEAR


def test_near_pairs_are_those_of_different_groups_nearest_first() -> None:
    base = np.unpackbits(picture_hash(smooth(0)))
    one, five, far = base.copy(), base.copy(), base.copy()
    one[3] ^= 1
    five[:5] ^= 1
    far[: NEAR + 1] ^= 1
    hashes = np.packbits(np.stack([base, one, five, far]), axis=1)
    assert near_pairs(hashes, np.array([0, 0, 1, 2])) == (4, [(1, 2, 4), (0, 2, 5), (2, 3, NEAR + 1 - 5), (1, 3, NEAR)])
    assert near_pairs(hashes, np.zeros(4, dtype=np.int64)) == (0, [])
    assert near_pairs(hashes[:1], np.zeros(1, dtype=np.int64)) == (0, [])


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=60), st.integers(1, 7))
def test_equal_images_are_counted_within_and_across_groups(images: list[tuple[int, int]], pieces: int) -> None:
    counted = EqualImages()
    for piece in range(pieces):
        part = np.array(images[piece::pieces], dtype=np.int64).reshape(-1, 2)
        counted.add(part[:, 0].astype(np.uint64), part[:, 1])
    groups: dict[int, list[int]] = {}
    for checksum, group in images:
        groups.setdefault(checksum, []).append(group)
    within = sum(len(found) - 1 for found in groups.values() if len(set(found)) == 1)
    found = counted.to_dict()
    assert (found["images"], found["distinct"]) == (len(images), len(groups))
    assert (found["repeats"], found["within"]) == (len(images) - len(groups), within)
    assert found["across"] == found["repeats"] - within
    assert found["share_seen"] == 1.0


def test_memory_is_bounded_and_equal_images_stay_together() -> None:
    rng = np.random.default_rng(0)
    counted = EqualImages(limit=1000)
    checksums = rng.integers(0, 2**63, 4000).astype(np.uint64)
    for group in range(10):
        counted.add(checksums, np.full(4000, group))
        assert counted._kept <= 1000
    found = counted.to_dict()
    assert found["images"] == 40_000
    assert 1 / 128 <= found["share_seen"] <= 1 / 16
    assert found["repeats"] == 9 * found["distinct"], "of those that are kept, all ten are"
    assert abs(found["distinct"] / found["share_seen"] - 4000) < 1500
