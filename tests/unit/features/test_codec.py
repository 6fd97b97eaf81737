"""The codecs store every value to within half a scale, and refuse values they cannot represent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pokevla.data.batch import QuantisedFeatures
from pokevla.errors import DataError, RecipeError
from pokevla.features.codec import (
    CODECS,
    codec_for,
    codecs_for,
    dequantise,
    quantise_channel64,
    quantise_token,
    to_float16,
)

FLOATS = st.floats(-1e5, 1e5, width=32)
GRIDS = st.integers(1, 18).flatmap(lambda grid: hnp.arrays(np.float32, (2, 3, grid, grid), elements=FLOATS))
TOKENS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=12), elements=FLOATS)
SMALL = hnp.arrays(np.float32, (2, 3, 5, 6), elements=st.floats(-60000, 60000, width=32))


def restored(values: np.ndarray, scales: np.ndarray | None, codec: str) -> np.ndarray:
    stored = QuantisedFeatures(torch.from_numpy(values), None if scales is None else torch.from_numpy(scales), codec)
    return dequantise(stored).numpy()


@settings(max_examples=60)
@given(GRIDS)
def test_values_of_a_grid_come_back_within_half_the_scale_of_their_group(values: np.ndarray) -> None:
    codes, scales = quantise_channel64(values, "x")
    grid = values.shape[-1]
    bound = np.repeat(scales.astype(np.float64), 64, axis=-1)[..., : grid * grid].reshape(values.shape) / 2
    error = np.abs(values.astype(np.float64) - restored(codes, scales, "int8_channel64"))
    assert (error <= bound * (1 + 1e-5) + 1e-30).all()


@settings(max_examples=60)
@given(TOKENS)
def test_values_of_tokens_come_back_within_half_the_scale_of_their_token(values: np.ndarray) -> None:
    codes, scales = quantise_token(values, "x")
    error = np.abs(values.astype(np.float64) - restored(codes, scales, "int8_token"))
    assert (error <= scales.astype(np.float64)[..., None] / 2 * (1 + 1e-5) + 1e-30).all()


@settings(max_examples=40)
@given(st.sampled_from(sorted(CODECS)), SMALL)
def test_every_codec_stores_what_its_entry_says_and_gives_the_shape_back(name: str, values: np.ndarray) -> None:
    codec = CODECS[name]
    stored, scales = codec.quantise(values, "x")
    assert (stored.dtype, stored.shape) == (codec.dtype, codec.stored_shape(values.shape))
    assert (None if scales is None else scales.shape) == codec.scale_shape(values.shape)
    back = restored(stored, scales, name)
    assert (back.dtype, back.shape) == (np.float32, values.shape)
    share = 14.9 if name == "int4_token64" else 200
    assert np.abs(back - values).max() <= np.abs(values).max() / share + 1e-6


@pytest.mark.parametrize("magnitude", [1e-7, 1e-4, 1.0, 1e4, 8e6])
def test_scale_is_at_most_a_float16_step_above_the_least_that_does_not_clip(magnitude: float) -> None:
    values = np.linspace(-magnitude, magnitude, 64, dtype=np.float32).reshape(1, 64)
    codes, scales = quantise_token(values, "x")
    least = np.float32(magnitude) / np.float32(127)
    assert least <= np.float64(scales[0]) * (1 + 1e-6)
    assert np.float64(scales[0]) <= least * (1 + 2**-10) + 6e-8
    assert np.abs(codes.astype(int)).max() <= 127


def test_zeros_stay_zero_and_a_constant_stays_constant() -> None:
    zeros, scales = quantise_channel64(np.zeros((1, 2, 8, 8), np.float32), "x")
    assert not zeros.any()
    assert not scales.any()
    constant = np.full((1, 2, 8, 8), -3.7, np.float32)
    back = restored(*quantise_channel64(constant, "x"), "int8_channel64")
    assert np.unique(back).size == 1
    np.testing.assert_allclose(back, constant, rtol=1e-3)


def test_values_beyond_the_range_are_refused_and_not_clipped() -> None:
    with pytest.raises(DataError, match=r"x holds .* too large"):
        quantise_token(np.full((1, 4), 1e8, np.float32), "x")
    with pytest.raises(DataError, match=r"x holds .* above float16"):
        to_float16(np.full((1, 4), 7e4, np.float32), "x")


def test_fp16_keeps_float16_values_exactly() -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype(np.float16).astype(np.float32)
    stored, scales = to_float16(values, "x")
    assert scales is None
    np.testing.assert_array_equal(restored(stored, scales, "fp16"), values)


@pytest.mark.parametrize("grid", [4, 8, 12, 16])
def test_channel_scales_apply_to_runs_of_64_values(grid: int) -> None:
    cells = grid * grid
    values = torch.randint(-127, 128, (2, 2, 3, grid, grid), dtype=torch.int8)
    scales = torch.rand(2, 2, 3, -(-cells // 64)).half()
    numbers = dequantise(QuantisedFeatures(values, scales, "int8_channel64"))
    flat = values.flatten(-2).float()
    for cell in range(cells):
        assert torch.equal(numbers.flatten(-2)[..., cell], flat[..., cell] * scales[..., cell // 64].float())


def test_token_scales_apply_to_whole_tokens() -> None:
    values, scales = torch.ones(1, 2, 5, 8, dtype=torch.int8), torch.arange(10.0).reshape(1, 2, 5).half()
    assert torch.equal(dequantise(QuantisedFeatures(values, scales, "int8_token"))[0, 1, 4], torch.full((8,), 9.0))


def test_codec_follows_from_the_shape_of_a_field() -> None:
    assert codec_for((3, 8, 8), "int8") == "int8_channel64"
    assert codec_for((16, 8), "int8") == "int8_token"
    assert codec_for((3, 8, 8), "fp16") == codec_for((16, 8), "fp16") == "fp16"
    assert codec_for((16, 8), "int4") == "int4_token64"


def test_only_tokens_of_an_even_width_are_stored_in_four_bits() -> None:
    assert codecs_for((16, 8)) == ["int8_token", "int4_token64", "fp16"]
    assert codecs_for((16, 7)) == ["int8_token", "fp16"]
    assert codecs_for((3, 8, 8)) == ["int8_channel64", "fp16"]
    for shape in ((16, 7), (3, 8, 8)):
        with pytest.raises(RecipeError, match=r"tokens of an even width, and this field is .* Choose int8 or fp16"):
            codec_for(shape, "int4")


@pytest.mark.parametrize(
    ("codec", "scales", "message"),
    [
        ("int8_token", None, "have no scales"),
        ("int8_token", torch.ones(2, 4), r"scales \(2, 4\) do not match"),
        ("int8_channel64", torch.ones(2, 3, 2), "do not match"),
        ("int4_token64", None, "have no scales"),
        ("int4_token64", torch.ones(2, 3, 5, 2, 1), "do not match"),
        ("int3", None, "unknown codec of features 'int3'"),
    ],
)
def test_scales_that_do_not_fit_and_unknown_codecs_are_refused(
    codec: str, scales: torch.Tensor | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        dequantise(QuantisedFeatures(torch.zeros(2, 3, 5, 5, dtype=torch.int8), scales, codec))
