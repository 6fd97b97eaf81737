from __future__ import annotations

import numpy as np
import pytest
import torch

from pokevla.data.batch import QuantisedFeatures, VLMBatch, dequantise, pad_texts, stack_features, swap_images
from pokevla.errors import DataError


@pytest.mark.parametrize("grid", [4, 8, 12, 16])
def test_channel_scales_apply_to_runs_of_64_values(grid: int) -> None:
    cells = grid * grid
    groups = -(-cells // 64)
    values = torch.randint(-127, 128, (2, 2, 3, grid, grid), dtype=torch.int8)
    scales = torch.rand(2, 2, 3, groups).half()
    out = dequantise(QuantisedFeatures(values, scales, "channel64"))
    flat = values.flatten(-2).float()
    for cell in range(cells):
        assert torch.equal(out.flatten(-2)[..., cell], flat[..., cell] * scales[..., cell // 64].float())


def test_token_scales_and_unquantised_features() -> None:
    values, scales = torch.ones(1, 2, 5, 8, dtype=torch.int8), torch.arange(10.0).reshape(1, 2, 5).half()
    assert torch.equal(dequantise(QuantisedFeatures(values, scales, "token"))[0, 1, 4], torch.full((8,), 9.0))
    halves = torch.rand(1, 2, 5, 8).half()
    assert torch.equal(dequantise(QuantisedFeatures(halves, None, "none")), halves.float())


def test_scales_that_do_not_fit_are_refused() -> None:
    values = torch.ones(1, 2, 5, 8, dtype=torch.int8)
    for group, scales in (("token", torch.ones(1, 2, 4)), ("channel64", torch.ones(1, 2, 2)), ("token", None)):
        with pytest.raises(DataError):
            dequantise(QuantisedFeatures(values, scales, group))
    with pytest.raises(DataError, match="unknown"):
        dequantise(QuantisedFeatures(values, torch.ones(1), "row"))


def test_stacked_halves_have_no_group() -> None:
    half, byte = np.zeros((2, 3), dtype=np.float16), np.zeros((2, 3), dtype=np.int8)
    assert stack_features([half], [None], "token").group == "none"
    stacked = stack_features([byte, byte], [np.zeros(2, dtype=np.float16)] * 2, "token")
    assert (stacked.group, stacked.values.shape) == ("token", (2, 2, 3))


def test_texts_are_padded_to_the_longest() -> None:
    ids, mask = pad_texts([[1], [2, 3]], 9)
    assert ids.tolist() == [[1, 9], [2, 3]]
    assert mask.tolist() == [[True, False], [True, True]]


def test_a_batch_moves_whole() -> None:
    tensor = torch.zeros(2, 1)
    batch = VLMBatch(["a", "b"], tensor, tensor, tensor, tensor, tensor).to("meta")
    assert batch.size == 2
    assert batch.pixel_values.device.type == batch.labels.device.type == "meta"


def test_swapped_images_come_from_another_sample_and_nothing_else_moves() -> None:
    images = torch.arange(5.0).reshape(5, 1, 1, 1, 1).expand(5, 1, 3, 2, 2)
    ids = torch.arange(5)[:, None]
    batch = VLMBatch(list("abcde"), torch.arange(5), images, ids, torch.ones(5, 1).bool(), ids)

    swapped = swap_images(batch)

    assert (swapped.pixel_values[:, 0, 0, 0, 0] != batch.pixel_values[:, 0, 0, 0, 0]).all()
    assert sorted(swapped.pixel_values[:, 0, 0, 0, 0].tolist()) == [0, 1, 2, 3, 4]
    assert swapped.keys == batch.keys
    assert swapped.input_ids is batch.input_ids
    assert torch.equal(batch.pixel_values, images)
