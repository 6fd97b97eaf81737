"""Batches of random pictures, texts and features, of the sizes of any preset: what a model needs to train a step."""

from __future__ import annotations

import numpy as np
import torch

from pokevla.data.batch import IGNORED_LABEL, QuantisedFeatures, RobotBatch, VLMBatch
from pokevla.features.codec import CODECS
from pokevla.model.presets import PokeVLAConfig


def robot_batch(config: PokeVLAConfig, size: int = 1, text_tokens: int = 60, seed: int = 0) -> RobotBatch:
    """`size` samples with masks and with int8 features of both teachers, uncropped, without padding."""
    rng = np.random.default_rng(seed)
    views, head, segmentation = config.num_views, config.action_head, config.segmentation
    side, mask, grid = config.vlm.image_size, segmentation.mask_size, segmentation.grid
    shapes = {
        "sam": (size, views, segmentation.embed_dim, grid, grid),
        "vggt": (size, views, config.geometry.grid**2, config.geometry.target_dim),
    }
    return RobotBatch(
        keys=[f"random-{index}" for index in range(size)],
        positions=torch.arange(size),
        pixel_values=_uniform(rng, size, views, 3, side, side),
        input_ids=torch.from_numpy(rng.integers(0, config.vlm.language_model.vocab_size, (size, text_tokens))),
        attention_mask=torch.ones(size, text_tokens, dtype=torch.bool),
        proprio=_uniform(rng, size, head.proprio_dim) * 2 - 1,
        actions=_uniform(rng, size, head.chunk_length, head.action_dim) * 2 - 1,
        masks=(_uniform(rng, size, views, mask, mask) > 0.7).float(),
        crop_boxes=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(size, views, 4).clone(),
        features={name: _features(rng, name, shape) for name, shape in shapes.items()},
    )


def vlm_batch(config: PokeVLAConfig, size: int = 1, text_tokens: int = 60, answer_tokens: int = 16) -> VLMBatch:
    """`size` questions about one random picture each, whose last `answer_tokens` tokens are trained."""
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(0, config.vlm.language_model.vocab_size, (size, text_tokens)))
    labels = ids.clone()
    labels[:, :-answer_tokens] = IGNORED_LABEL
    return VLMBatch(
        keys=[f"random-{index}" for index in range(size)],
        positions=torch.arange(size),
        pixel_values=_uniform(rng, size, 1, 3, config.vlm.image_size, config.vlm.image_size),
        input_ids=ids,
        attention_mask=torch.ones(size, text_tokens, dtype=torch.bool),
        labels=labels,
    )


def _uniform(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.random(shape, dtype=np.float32))


def _features(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> QuantisedFeatures:
    codec = "int8_channel64" if len(shape) == 5 else "int8_token"
    values, scales = CODECS[codec].quantise(rng.standard_normal(shape, dtype=np.float32), name)
    return QuantisedFeatures(torch.from_numpy(values), None if scales is None else torch.from_numpy(scales), codec)
