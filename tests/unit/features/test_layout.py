"""The codec keeps every value within half a scale, and refuses what it cannot keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pokevla.data.batch import FeatureArrays, dequantise, stack_features
from pokevla.errors import DataError
from pokevla.teachers.codec import (
    ALIGNMENT,
    HEADER_BYTES,
    RecordLayout,
    decode_record,
    encode_features,
    encode_record,
    payload_offset,
    quantise_channel64,
    quantise_token,
    record_layout,
    to_float16,
)

FLOATS = st.floats(-1e5, 1e5, width=32)
GRIDS = st.integers(1, 18).flatmap(lambda grid: hnp.arrays(np.float32, (2, 3, grid, grid), elements=FLOATS))
TOKENS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=12), elements=FLOATS)
LAYOUT = record_layout((2, 3, 9, 9), (2, 4, 6), "int8", "int8")
AUDIT = record_layout((2, 3, 9, 9), (2, 4, 6), "fp16", "fp16")


def restored(values: np.ndarray, scales: np.ndarray, group: str) -> np.ndarray:
    return dequantise(stack_features([values], [scales], group))[0].numpy()


def random_features(seed: int, layout: RecordLayout) -> list[FeatureArrays]:
    rng = np.random.default_rng(seed)
    sam = rng.normal(size=(2, *layout.sam.shape)).astype(np.float32)
    vggt = rng.normal(size=(2, *layout.vggt.shape)).astype(np.float32)
    return encode_features(sam, vggt, layout)


@settings(max_examples=60, deadline=None)
@given(GRIDS)
def test_sam_values_come_back_within_half_the_scale_of_their_group(values: np.ndarray) -> None:
    codes, scales = quantise_channel64(values)
    grid = values.shape[-1]
    bound = np.repeat(scales.astype(np.float64), 64, axis=-1)[..., : grid * grid].reshape(values.shape) / 2
    error = np.abs(values.astype(np.float64) - restored(codes, scales, "channel64"))
    assert (error <= bound * (1 + 1e-5) + 1e-30).all()


@settings(max_examples=60, deadline=None)
@given(TOKENS)
def test_vggt_values_come_back_within_half_the_scale_of_their_token(values: np.ndarray) -> None:
    codes, scales = quantise_token(values)
    error = np.abs(values.astype(np.float64) - restored(codes, scales, "token"))
    assert (error <= scales.astype(np.float64)[..., None] / 2 * (1 + 1e-5) + 1e-30).all()


@pytest.mark.parametrize("magnitude", [1e-7, 1e-4, 1.0, 1e4, 8e6])
def test_scale_is_at_most_a_float16_step_above_the_least_that_does_not_clip(magnitude: float) -> None:
    values = np.linspace(-magnitude, magnitude, 64, dtype=np.float32).reshape(1, 64)
    codes, scales = quantise_token(values)
    least = np.float32(magnitude) / np.float32(127)
    assert least <= np.float64(scales[0]) * (1 + 1e-6)
    assert np.float64(scales[0]) <= least * (1 + 2**-10) + 6e-8
    assert np.abs(codes.astype(int)).max() <= 127


def test_zeros_stay_zero_and_a_constant_stays_constant() -> None:
    zeros, scales = quantise_channel64(np.zeros((1, 2, 8, 8), np.float32))
    assert not zeros.any()
    assert not scales.any()
    constant = np.full((1, 2, 8, 8), -3.7, np.float32)
    back = restored(*quantise_channel64(constant), "channel64")
    assert np.unique(back).size == 1
    np.testing.assert_allclose(back, constant, rtol=1e-3)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("codec", ["int8", "fp16"])
def test_values_that_are_not_finite_are_refused(bad: float, codec: str) -> None:
    layout = record_layout((2, 3, 9, 9), (2, 4, 6), codec, codec)
    sam, vggt = np.zeros((1, *layout.sam.shape), np.float32), np.zeros((1, *layout.vggt.shape), np.float32)
    vggt[0, 1, 2, 3] = bad
    with pytest.raises(DataError, match="VGGT feature holds a value that is not finite"):
        encode_features(sam, vggt, layout)


def test_values_beyond_the_range_are_refused_and_not_clipped() -> None:
    with pytest.raises(DataError, match="too large"):
        quantise_token(np.full((1, 4), 1e8, np.float32))
    with pytest.raises(DataError, match="above float16"):
        to_float16(np.full((1, 4), 7e4, np.float32), "VGGT feature")


def test_fp16_cache_keeps_float16_values_exactly() -> None:
    rng = np.random.default_rng(0)
    sam = rng.normal(size=(1, *AUDIT.sam.shape)).astype(np.float16).astype(np.float32)
    vggt = rng.normal(size=(1, *AUDIT.vggt.shape)).astype(np.float16).astype(np.float32)
    (features,) = encode_features(sam, vggt, AUDIT)
    assert features.sam_scales is None
    assert features.vggt_scales is None
    np.testing.assert_array_equal(np.asarray(features.sam, dtype=np.float32), sam[0])
    np.testing.assert_array_equal(np.asarray(features.vggt, dtype=np.float32), vggt[0])


@pytest.mark.parametrize("layout", [LAYOUT, AUDIT])
@pytest.mark.parametrize("start", [0, 512, 4096 - 64, 4096 - 512, 7680])
def test_record_round_trip_with_its_payload_on_a_page_boundary(layout: RecordLayout, start: int) -> None:
    features = random_features(1, layout)[0]
    record = encode_record(features, layout, start)
    offset = payload_offset(start)
    assert offset >= HEADER_BYTES
    assert (start + offset) % ALIGNMENT == 0
    assert len(record) == offset + layout.payload_bytes
    for stored, original in zip(decode_record(record, layout), features, strict=True):
        if original is None:
            assert stored is None
        else:
            np.testing.assert_array_equal(stored, original)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_records_are_refused_or_differ_only_in_their_payload(data: st.DataObject) -> None:
    record = bytearray(encode_record(random_features(2, LAYOUT)[0], LAYOUT))
    length = data.draw(st.integers(0, len(record) - 1), label="length")
    with pytest.raises(DataError):
        decode_record(bytes(record[:length]), LAYOUT)
    place = data.draw(st.integers(0, 51), label="header byte")
    record[place] ^= data.draw(st.integers(1, 255), label="flip")
    with pytest.raises(DataError):
        decode_record(bytes(record), LAYOUT)


def test_record_of_another_layout_is_refused() -> None:
    record = encode_record(random_features(3, LAYOUT)[0], LAYOUT)
    with pytest.raises(DataError, match="shapes or types other"):
        decode_record(record, AUDIT)


def test_features_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match="the cache stores"):
        encode_features(np.zeros((1, 2, 3, 8, 8), np.float32), np.zeros((1, 2, 4, 6), np.float32), LAYOUT)


def test_layout_survives_json() -> None:
    assert RecordLayout.from_dict(LAYOUT.to_dict()) == LAYOUT
    assert RecordLayout.from_dict(AUDIT.to_dict()) == AUDIT


def test_paper_size_record_is_three_mebibytes() -> None:
    layout = record_layout((2, 256, 64, 64), (2, 256, 2048), "int8", "int8")
    assert layout.payload_bytes == 2 * 256 * 4096 + 2 * 256 * 2048 + 2 * (2 * 256 * 64) + 2 * (2 * 256)
