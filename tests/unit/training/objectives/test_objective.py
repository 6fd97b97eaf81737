"""The objectives join model, losses and cached features."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pokevla.data.batch import QuantisedFeatures, RobotBatch, VLMBatch
from pokevla.data.loading.packing import packed
from pokevla.errors import DataError
from pokevla.model.building import build_vla, build_vlm
from pokevla.model.presets import preset
from pokevla.recipe.sections import LossConfig, SegmentationLossConfig
from pokevla.training.measuring import loss_gradient_norms
from pokevla.training.objectives.objective import PosttrainObjective, PretrainObjective

CONFIG = preset("tiny")


def robot_batch(size: int = 2) -> RobotBatch:
    generator = torch.Generator().manual_seed(0)
    segmentation, side = CONFIG.segmentation, CONFIG.vlm.image_size
    channels, grid, mask = segmentation.embed_dim, segmentation.grid, segmentation.mask_size
    tokens, width = CONFIG.geometry.grid**2, CONFIG.geometry.target_dim
    sam = torch.randn(size, 2, channels, grid, grid, generator=torch.Generator().manual_seed(1))
    vggt = torch.randn(size, 2, tokens, width, generator=torch.Generator().manual_seed(2))
    return RobotBatch(
        keys=[str(i) for i in range(size)],
        positions=torch.arange(size),
        pixel_values=torch.rand(size, 2, 3, side, side, generator=generator),
        input_ids=torch.randint(0, 100, (size, 6), generator=generator),
        attention_mask=torch.ones(size, 6, dtype=torch.bool),
        proprio=torch.rand(size, 8, generator=generator),
        actions=torch.rand(size, CONFIG.action_head.chunk_length, 7, generator=generator),
        masks=(torch.rand(size, 2, mask, mask, generator=generator) > 0.7).float(),
        crop_boxes=torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(size, 2, 4).clone(),
        features={
            "sam": QuantisedFeatures(sam.half(), None, "fp16"),
            "vggt": QuantisedFeatures(vggt.half(), None, "fp16"),
        },
    )


def vlm_batch(labels: torch.Tensor, images: int = 1) -> VLMBatch:
    size = labels.shape[0]
    side = CONFIG.vlm.image_size
    return VLMBatch(
        keys=[str(i) for i in range(size)],
        positions=torch.arange(size),
        pixel_values=torch.rand(size, images, 3, side, side, generator=torch.Generator().manual_seed(1)),
        input_ids=labels.clamp(min=0),
        attention_mask=torch.ones_like(labels, dtype=torch.bool),
        labels=labels,
    )


@pytest.mark.parametrize("counts", [[1, 0, 1, 0], [2, 0, 3, 1]], ids=["one or none", "several"])
@pytest.mark.parametrize("is_listed", [False, True], ids=["all encoded", "those there encoded"])
def test_mixed_batch_of_any_numbers_of_images_has_the_losses_of_its_samples(counts: list[int], is_listed: bool) -> None:
    labels = torch.randint(0, 800, (4, 6), generator=torch.Generator().manual_seed(0))
    labels[:, :2] = -100
    mixed = vlm_batch(labels, max(counts))
    mixed.num_images = torch.tensor(counts)
    if is_listed:
        mixed.present = (torch.arange(max(counts)) < mixed.num_images[:, None]).flatten().nonzero()[:, 0]
    objective = PretrainObjective(build_vlm(CONFIG.vlm, seed=0))
    alone = []
    for row, count in enumerate(counts):
        one = {name: getattr(mixed, name)[row : row + 1] for name in ("keys", "positions", "input_ids", "labels")}
        pixels = mixed.pixel_values[row : row + 1, :count]  # no view at all: the same as an absent image
        mask = mixed.attention_mask[row : row + 1]
        alone.append(objective(VLMBatch(**one, pixel_values=pixels, attention_mask=mask))[0])
    total, _ = objective(mixed)
    torch.testing.assert_close(total, torch.stack(alone).mean())
    total.backward()
    projector = objective.model.projector.fc1.weight.grad
    assert projector is not None
    assert float(projector.abs().max()) > 0


def test_batch_of_text_alone_gives_every_parameter_a_gradient() -> None:
    labels = torch.randint(0, 800, (2, 6), generator=torch.Generator().manual_seed(0))
    batch = vlm_batch(labels)
    batch.num_images, batch.present = torch.zeros(2, dtype=torch.int64), torch.tensor([0])
    objective = PretrainObjective(build_vlm(CONFIG.vlm, seed=0))
    total, _ = objective(batch)
    total.backward()  # ZeRO waits for the gradient of each trained parameter on every rank
    trained = [p for p in objective.model.parameters() if p.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)
    assert float(objective.model.projector.fc1.weight.grad.abs().max()) == 0  # pyright: ignore


def test_total_is_the_weighted_sum_of_the_logged_losses() -> None:
    weights = LossConfig(action=2.0, geometry=0.5, segmentation=SegmentationLossConfig(weight=0.25, focal=10.0, kl=0.1))
    total, logged = PosttrainObjective(build_vla(CONFIG, seed=0), weights)(robot_batch())
    assert float(logged["loss/segmentation"]) == pytest.approx(
        10 * float(logged["loss/focal"]) + 0.1 * float(logged["loss/kl"])
    )
    expected = 2 * logged["loss/action"] + 0.25 * logged["loss/segmentation"] + 0.5 * logged["loss/geometry"]
    torch.testing.assert_close(total.detach(), expected)
    torch.testing.assert_close(total.detach(), logged["loss"])


def test_a_loss_without_weight_needs_no_features() -> None:
    weights = LossConfig(geometry=0.0, segmentation=SegmentationLossConfig(weight=0.0))
    batch = robot_batch()
    batch.features, batch.masks = {}, None
    _, logged = PosttrainObjective(build_vla(CONFIG, seed=0), weights)(batch)
    assert set(logged) == {"loss", "loss/action"}


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("sam", "segmentation loss .* needs the cached features sam; the batch has only vggt"),
        ("vggt", "geometry loss .* needs the cached features vggt"),
        ("masks", "no masks"),
    ],
)
def test_a_batch_without_what_a_loss_needs_is_refused(missing: str, message: str) -> None:
    batch = robot_batch()
    if missing == "masks":
        batch.masks = None
    else:
        del batch.features[missing]
    with pytest.raises(DataError, match=message):
        PosttrainObjective(build_vla(CONFIG, seed=0), LossConfig())(batch)


@pytest.mark.parametrize("shape", [(6, 9, 9), (25, 6)], ids=["grid", "tokens"])
def test_geometry_aligns_with_the_features_of_any_teacher_whose_width_the_model_has(shape: tuple[int, ...]) -> None:
    config = dataclasses.replace(CONFIG, geometry=dataclasses.replace(CONFIG.geometry, target_dim=6))
    weights = LossConfig(geometry_features="other", segmentation=SegmentationLossConfig(weight=0.0))
    batch = robot_batch()
    values = torch.randn(2, 2, *shape, generator=torch.Generator().manual_seed(4))
    batch.features = {"other": QuantisedFeatures(values, None, "fp16")}
    total, logged = PosttrainObjective(build_vla(config, seed=0), weights)(batch)
    total.backward()
    assert 0 < float(logged["loss/geometry"]) < 2
    with pytest.raises(DataError, match=r"width 6, the model projects to 24.*geometry_width=6"):
        PosttrainObjective(build_vla(CONFIG, seed=0), weights)(batch)


def test_pretraining_loss_weighs_samples_alike() -> None:
    objective = PretrainObjective(build_vlm(CONFIG.vlm, seed=0))
    labels = torch.randint(1, 100, (2, 8), generator=torch.Generator().manual_seed(2))
    labels[0, :6] = -100  # a short and a long answer
    batch = vlm_batch(labels)
    batch.input_ids = torch.randint(1, 100, (2, 8), generator=torch.Generator().manual_seed(3))
    both = objective(batch)[0]
    alone = []
    for row in range(2):
        part = vlm_batch(labels[row : row + 1])
        part.input_ids, part.pixel_values = batch.input_ids[row : row + 1], batch.pixel_values[row : row + 1]
        alone.append(objective(part)[0])
    torch.testing.assert_close(both, torch.stack(alone).mean())


def test_pretraining_loss_of_one_sample_is_the_next_token_loss_of_the_full_logits() -> None:
    model = build_vlm(CONFIG.vlm, seed=0)
    labels = torch.randint(1, 100, (1, 8), generator=torch.Generator().manual_seed(2))
    labels[0, :3] = -100
    batch = vlm_batch(labels)
    logits = model(batch.pixel_values, batch.input_ids, batch.attention_mask)
    text_logits = logits[:, -labels.shape[1] :]  # vision follows the first text token
    expected = F.cross_entropy(text_logits[0, :-1], labels[0, 1:], ignore_index=-100)
    torch.testing.assert_close(PretrainObjective(model)(batch)[0], expected)


def test_gradient_norms_are_those_of_each_loss_and_leave_no_gradient_behind() -> None:
    model = build_vla(CONFIG, seed=0)
    objective = PosttrainObjective(model, LossConfig())
    batch = robot_batch()
    norms = loss_gradient_norms(objective, batch)
    assert all(parameter.grad is None for parameter in model.parameters())
    objective.terms(batch).weighted["geometry"].backward()
    gradients = [p.grad.flatten() for p in model.shared_parameters() if p.grad is not None]
    assert norms["grad_norm/geometry"] == pytest.approx(float(torch.cat(gradients).norm()), rel=1e-5)


def questions(lengths: list[int], answers: list[int], num_images: list[int]) -> VLMBatch:
    """Texts of these lengths, each ending in an answer, with so many pictures."""
    width = max(lengths)
    ids = torch.randint(1, 900, (len(lengths), width), generator=torch.Generator().manual_seed(5))
    places = torch.arange(width)[None]
    mask = places < torch.tensor(lengths)[:, None]
    starts = (torch.tensor(lengths) - torch.tensor(answers))[:, None]
    batch = vlm_batch(torch.where(mask & (places >= starts), ids, -100), max(num_images))
    batch.input_ids, batch.attention_mask, batch.num_images = ids, mask, torch.tensor(num_images)
    return batch


def part_of(batch: VLMBatch, samples: list[int]) -> VLMBatch:
    """Some samples of a batch, in this order."""
    names = ("positions", "pixel_values", "input_ids", "attention_mask", "labels", "num_images")
    return VLMBatch([batch.keys[n] for n in samples], **{name: getattr(batch, name)[samples] for name in names})


@pytest.mark.parametrize("average", ["samples", "tokens"])
def test_packed_micro_batches_of_any_sizes_have_the_loss_and_gradient_of_padded_ones(
    average: Literal["samples", "tokens"],
) -> None:
    whole = questions([9, 4, 12, 6, 7, 5], [3, 1, 8, 2, 2, 3], [1, 2, 0, 1, 0, 3])
    objective = PretrainObjective(build_vlm(CONFIG.vlm, seed=0), average)
    trained, vision = 19, CONFIG.vlm.num_patches
    divisor = 3.0 if average == "samples" else trained / 2

    def mean(batches: list[VLMBatch]) -> tuple[float, list[torch.Tensor]]:
        objective.zero_grad()
        losses = [objective(batch)[0] for batch in batches]
        torch.stack(losses).mean().backward()
        gradients = [p.grad.clone() for p in objective.parameters() if p.grad is not None]
        return float(torch.stack(losses).detach().mean()), gradients

    padded = [part_of(whole, [0, 1, 2]), part_of(whole, [3, 4, 5])]
    halves = [(part_of(whole, [2, 5]), [0, 1]), (part_of(whole, [0, 1, 3, 4]), [0, 0, 1, 1])]
    for batch in (*padded, *(half for half, _ in halves)):
        batch.loss_divisor = divisor
    loss, gradients = mean(padded)
    packed_loss, packed_gradients = mean([packed(half, np.array(rows), vision) for half, rows in halves])
    assert packed_loss == pytest.approx(loss, abs=1e-5)
    for one, other in zip(gradients, packed_gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)

    assert float(objective(whole)[0].detach()) == pytest.approx(loss, abs=1e-5)  # one batch, divided by its own count
