"""Vision towers: penultimate features, separate normalisation, unused parts frozen."""

from __future__ import annotations

import torch

from pokevla.model.presets import preset
from pokevla.model.vision_encoders.backbone import IMAGENET_MEAN, IMAGENET_STD, VisionBackbone
from pokevla.model.vision_encoders.towers import penultimate_patches, sincos_position


def test_features_are_both_towers_side_by_side_each_with_its_normalisation() -> None:
    backbone = VisionBackbone(preset("tiny").vlm)
    images = torch.rand(2, 3, 28, 28)
    features = backbone(images)
    assert features.shape == (2, 4, 16 + 24)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(features[..., :16], penultimate_patches(backbone.dino_featurizer, (images - mean) / std))
    torch.testing.assert_close(features[..., 16:], penultimate_patches(backbone.siglip_featurizer, images * 2 - 1))


def test_exactly_the_idle_parameters_are_frozen() -> None:
    backbone = VisionBackbone(preset("tiny").vlm)
    backbone(torch.rand(1, 3, 28, 28)).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name


def test_sincos_code_tells_every_place_apart_and_its_coordinates_can_be_read_off() -> None:
    code = sincos_position(8, 62)  # a width that four does not divide is padded
    assert code.shape == (64, 62)
    distance = torch.cdist(code, code) + 9 * torch.eye(64)
    assert distance.min() > 0.5
    place = torch.stack([torch.arange(64) % 8, torch.arange(64) // 8], dim=1).float()
    given = torch.cat([code, torch.ones(64, 1)], dim=1)
    fit = torch.linalg.lstsq(given, place, driver="gelsd").solution
    assert (given @ fit - place).abs().max() < 0.05
