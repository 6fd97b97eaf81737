"""Four bits a value: every value comes back within half a scale of its group, and the bytes are what the page says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pokevla.data.batch import QuantisedFeatures
from pokevla.errors import DataError
from pokevla.features.codec import dequantise, quantise_int4
from pokevla.features.feature_crop import crop_to_patches
from pokevla.features.layout import FieldLayout, RecordLayout, decode_record, encode_features, encode_record
from pokevla.model.presets import preset

WIDTHS = st.sampled_from([2, 6, 24, 62, 64, 66, 128, 200])
ANY = st.floats(-65504, 65504, width=32, allow_subnormal=True)


@st.composite
def tokens(draw: st.DrawFn) -> np.ndarray:
    """(3, W) float32: any values, ordinary ones or heavy-tailed ones, of any size that float16 has."""
    width = draw(WIDTHS)
    kind = draw(st.sampled_from(["any", "normal", "t2", "outliers", "offset"]))
    if kind == "any":
        return draw(hnp.arrays(np.float32, (3, width), elements=ANY))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.standard_t(2, (3, width)) if kind == "t2" else rng.normal(size=(3, width))
    if kind == "outliers":
        values[0] *= 20
        values[:, 0] *= 30
    values = values + 100 if kind == "offset" else values
    return np.clip(values * 10.0 ** draw(st.integers(-9, 3)), -65504, 65504).astype(np.float32)


def restored(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values that went through the codec, and the scale that applies to each, both in float64."""
    packed, scales = quantise_int4(values, "x")
    stored = QuantisedFeatures(torch.from_numpy(packed), torch.from_numpy(scales), "int4_token64")
    width = values.shape[-1]
    per_value = np.repeat(scales[..., 0].astype(np.float64), 64, axis=-1)[..., :width]
    return dequantise(stored).numpy().astype(np.float64), per_value


@settings(max_examples=150, deadline=None)
@given(tokens())
def test_values_come_back_within_half_the_scale_of_their_group(values: np.ndarray) -> None:
    back, scales = restored(values)
    rounding = 4 * np.finfo(np.float32).eps * np.abs(values)  # of the float32 arithmetic
    assert (np.abs(values - back) <= scales / 2 + rounding + 1e-12).all()


@settings(max_examples=150, deadline=None)
@given(tokens())
def test_scales_are_hardly_larger_than_the_range_of_their_group_needs(values: np.ndarray) -> None:
    _, scales = restored(values)
    for start in range(0, values.shape[-1], 64):
        group = values[:, start : start + 64].astype(np.float64)
        range_ = group.max(axis=-1) - group.min(axis=-1)
        below = np.abs(group.min(axis=-1)) * 2**-10 + 6e-8  # at most a float16 step under the least value
        assert (scales[:, start] <= (range_ + below) / 15 * (1 + 2**-9) + 6e-8).all()


@settings(max_examples=60, deadline=None)
@given(ANY, WIDTHS)
def test_a_constant_token_stays_constant_and_a_float16_one_exact(value: float, width: int) -> None:
    back, _ = restored(np.full((1, width), value, np.float32))
    assert np.unique(back).size == 1
    assert abs(back[0, 0] - value) <= abs(value) * 2**-14 + 6e-8
    exact = np.float32(np.float16(value))
    assert (restored(np.full((1, width), exact, np.float32))[0] == exact).all()


def test_zeros_stay_zero() -> None:
    packed, scales = quantise_int4(np.zeros((2, 3, 130), np.float32), "x")
    assert not packed.any()
    assert not scales.any()
    assert (packed.shape, scales.shape) == ((2, 3, 65), (2, 3, 3, 2))


def test_low_bits_come_first_and_scale_before_minimum() -> None:
    packed, scales = quantise_int4(np.arange(16, dtype=np.float32)[None] * 2 - 8, "x")
    assert packed.tolist() == [[low | (low + 1) << 4 for low in range(0, 16, 2)]]
    assert scales.tolist() == [[[2.0, -8.0]]]


@pytest.mark.parametrize(("value", "message"), [(70000.0, "above float16"), (-70000.0, "above float16"),
                                                (np.nan, "not finite"), (np.inf, "not finite")])  # fmt: skip
def test_what_cannot_be_stored_is_refused_with_the_key_of_its_sample(value: float, message: str) -> None:
    values = np.zeros((3, 2, 4, 6), np.float32)
    values[1, 0, 2, 3] = value
    with pytest.raises(DataError, match=f"Sample b: a feature of field vggt holds .*{message}"):
        encode_features({"vggt": values}, layout_of((2, 4, 6)), ["a", "b", "c"])


def layout_of(shape: tuple[int, ...], *before: FieldLayout) -> RecordLayout:
    return RecordLayout((*before, FieldLayout("vggt", "vggt", shape, "int4_token64")))


@pytest.mark.parametrize("before", [(), (FieldLayout("sam", "sam", (2, 3, 8, 8), "int8_channel64"),)])
def test_records_hold_the_halves_and_read_them_back(before: tuple[FieldLayout, ...]) -> None:
    layout, rng = layout_of((2, 4, 70), *before), np.random.default_rng(0)
    outputs = {field.name: rng.normal(size=(2, *field.shape)).astype(np.float32) for field in layout.fields}
    features = encode_features(outputs, layout)[1]
    assert layout.field("vggt").num_bytes == 2 * 4 * (35 + 2 * 4)
    record = encode_record(features, layout, 512)
    assert record[4:6] == b"\x02\x00", "the header of version 1 has no type for it"
    read = decode_record(record, layout)["vggt"]
    assert np.array_equal(read.values, features["vggt"].values)
    assert read.scales is not None
    assert np.array_equal(read.scales, quantise_int4(outputs["vggt"][1], "x")[1])


@pytest.mark.parametrize("shape", [[2, 4, 4, 4], [2, 4, 7]])
def test_manifest_that_gives_it_to_another_shape_is_refused(shape: list[int]) -> None:
    entry: dict[str, Any] = {"name": "vggt", "teacher": "vggt", "shape": shape, "codec": "int4_token64"}
    with pytest.raises(DataError, match=r"field 'vggt' has the shape .*cache build RECIPE"):
        RecordLayout.from_manifest({"fields": [entry]})


def test_cropped_tokens_are_those_of_the_exact_ones_up_to_the_code() -> None:
    exact = np.random.default_rng(0).normal(size=(2, 2, 16, 128)).astype(np.float32)
    packed, scales = quantise_int4(exact, "x")
    stored = dequantise(QuantisedFeatures(torch.from_numpy(packed), torch.from_numpy(scales), "int4_token64"))
    boxes = torch.tensor([0.05, 0.0, 0.95, 0.9]).expand(2, 2, 4)
    ours, theirs = (crop_to_patches(values, boxes, 9) for values in (stored, torch.from_numpy(exact)))
    assert ours.shape == (2, 2, 9, 128)
    assert (ours - theirs).abs().max() <= scales[..., 0].max() / 2 + 1e-5, "a mean of neighbours errs no more than they"


def test_tokens_like_vggt_s_turn_by_a_small_angle() -> None:
    """Width and number of VGGT-1B's; normal values gave what features of a DINOv2-L with random weights gave."""
    tokens, width = 256, 2048
    assert (tokens, width) == (preset("pocket").geometry.grid ** 2, preset("pocket").geometry.target_dim)
    exact = np.random.default_rng(0).normal(size=(1, 1, tokens, width)).astype(np.float32)
    packed, scales = quantise_int4(exact, "x")
    stored = dequantise(QuantisedFeatures(torch.from_numpy(packed), torch.from_numpy(scales), "int4_token64"))
    cosine = torch.nn.functional.cosine_similarity(stored, torch.from_numpy(exact), dim=-1)
    assert 0.9955 < cosine.mean() < 0.9965
    assert cosine.min() > 0.995
    assert packed.nbytes + scales.nbytes == 256 * (1024 + 32 * 4)
