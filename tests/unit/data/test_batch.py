from __future__ import annotations

import numpy as np
import pytest
import torch

from pokevla.data.batch import (
    QuantisedFeatures,
    RobotBatch,
    StoredFeature,
    VLMBatch,
    pad_texts,
    stack_features,
    swap_images,
)
from pokevla.errors import DataError


def test_features_are_stacked_by_name_with_their_codec() -> None:
    bytes_, scales, halves = np.zeros((2, 3), np.int8), np.ones(2, np.float16), np.zeros((2, 3), np.float16)
    sample = {"tokens": StoredFeature(bytes_, scales, "int8_token"), "exact": StoredFeature(halves, None, "fp16")}
    stacked = stack_features([sample, sample])
    assert list(stacked) == ["tokens", "exact"]
    tokens, exact = stacked["tokens"], stacked["exact"]
    assert tokens.scales is not None
    assert (tokens.codec, tuple(tokens.values.shape), tuple(tokens.scales.shape)) == ("int8_token", (2, 2, 3), (2, 2))
    assert (exact.codec, exact.scales) == ("fp16", None)
    assert stack_features([{}, {}]) == {}


def test_samples_with_other_features_are_no_batch() -> None:
    one = {"tokens": StoredFeature(np.zeros((2, 3), np.float16), None, "fp16")}
    with pytest.raises(DataError, match="different cached features"):
        stack_features([one, {}])


def test_texts_are_padded_to_the_longest() -> None:
    ids, mask = pad_texts([[1], [2, 3]], 9)
    assert ids.tolist() == [[1, 9], [2, 3]]
    assert mask.tolist() == [[True, False], [True, True]]


def test_a_batch_moves_whole() -> None:
    tensor = torch.zeros(2, 1)
    batch = VLMBatch(["a", "b"], tensor, tensor, tensor, tensor, tensor).to("meta")
    assert batch.size == 2
    assert batch.pixel_values.device.type == batch.labels.device.type == "meta"


def test_the_features_of_a_robot_batch_move_with_it() -> None:
    tensor = torch.zeros(2, 1)
    features = {"tokens": QuantisedFeatures(torch.zeros(2, 2, 3), torch.ones(2, 2), "int8_token")}
    batch = RobotBatch(["a", "b"], *[tensor] * 6, masks=None, crop_boxes=tensor, features=features)
    moved = batch.to("meta")
    scales = moved.features["tokens"].scales
    assert scales is not None
    assert moved.features["tokens"].values.device.type == scales.device.type == moved.actions.device.type == "meta"
    assert moved.masks is None
    assert batch.features["tokens"].values.device.type == "cpu"


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
