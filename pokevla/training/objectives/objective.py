"""Objectives: model and losses wrapped in one module, so that the engine's forward pass returns a scalar."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from pokevla.data.batch import RobotBatch, VLMBatch, trained_places
from pokevla.data.images.pixels import to_unit_range
from pokevla.errors import DataError
from pokevla.features.codec import dequantise
from pokevla.features.feature_crop import crop_image_features, crop_to_patches
from pokevla.model.packing import Block, packed_layout
from pokevla.model.vla import PokeVLA, VLAOutput
from pokevla.model.vlm import PokeVLM
from pokevla.recipe.sections import LossConfig
from pokevla.training.objectives import losses

MASK_FEATURES = "sam"
"""Name of the cached field that the mask decoders read."""


@dataclass
class Terms:
    """The losses of one micro-batch."""

    weighted: dict[str, Tensor] = field(default_factory=dict)  # name -> scalar; their sum is what is minimised
    logged: dict[str, Tensor] = field(default_factory=dict)  # name -> scalar, unweighted, as logged

    @property
    def total(self) -> Tensor:
        """The scalar that is minimised."""
        return torch.stack(list(self.weighted.values())).sum()


class PretrainObjective(nn.Module):
    """PokeVLM with the next-token loss, a mean over `average` (`AnswerLossConfig`)."""

    def __init__(self, model: PokeVLM, average: Literal["samples", "tokens"] = "samples") -> None:
        super().__init__()
        self.model, self.average = model, average

    def forward(self, batch: VLMBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss, and detached values to log."""
        return _total_and_log(self.terms(batch))

    def terms(self, batch: VLMBatch) -> Terms:
        """Next-token loss of a micro-batch."""
        places = trained_places(batch.labels) if batch.trained is None else batch.trained
        row, column = places.unbind(dim=1)
        # The head runs on trained positions only: logits at all positions would cost more than a quarter of the body.
        logits = self.model.language_model.lm_head(self._states(batch, row, column))
        targets = batch.labels[row, 1 + column]
        if self.average == "tokens":
            loss = losses.next_token_of_all(logits, targets, batch.loss_divisor)
        else:
            loss = losses.next_token(logits, targets, row, batch.labels.shape[0], batch.loss_divisor)
        return Terms({"next_token": loss}, {"loss/next_token": loss})

    def _states(self, batch: VLMBatch, sample: Tensor, column: Tensor) -> Tensor:
        """(N, D) last states that predict the text tokens `column` + 1 (N,) of the samples (N,).

        Text token t >= 1 of a sample with V vision tokens is at position V + t: the state at V + t - 1 predicts it.
        """
        vision = self.model.encode_images(to_unit_range(batch.pixel_values, batch.colours), batch.present)
        row_vision = None if batch.num_images is None else batch.num_images * self.model.config.num_patches
        where = batch.packing
        if where is None:
            states, layout = self.model.run_sequence(
                vision, batch.input_ids, batch.attention_mask, row_vision=row_vision
            )
            return states[-1][sample, layout.num_vision_in(sample) + column]
        blocks = [Block(*block) for block in where.blocks]
        layout = packed_layout(batch.attention_mask, vision.shape[1], row_vision, where.row, where.start, blocks)
        states = self.model.run_packed(vision, batch.input_ids, layout)
        return states.flatten(0, 1)[layout.first[sample] + layout.num_vision_in(sample) + column]

    def shared_parameters(self) -> list[nn.Parameter]:
        """All trainable parameters, since there is only one loss."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


class PosttrainObjective(nn.Module):
    """PokeVLA with the three losses of the paper: actions, masks, geometry."""

    def __init__(self, model: PokeVLA, weights: LossConfig) -> None:
        super().__init__()
        self.model = model
        self.weights = weights

    def forward(self, batch: RobotBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss, and detached values to log."""
        return _total_and_log(self.terms(batch))

    def terms(self, batch: RobotBatch) -> Terms:
        """The three losses of a micro-batch. A loss of weight 0 is not computed."""
        output = self.model(
            to_unit_range(batch.pixel_values, batch.colours),
            batch.input_ids,
            batch.attention_mask,
            batch.proprio,
            self._sam_features(batch),
            with_geometry=self.weights.geometry > 0,
        )
        action = losses.action_l1(output.actions, batch.actions)
        terms = Terms({"action": self.weights.action * action}, {"loss/action": action})
        if self.weights.segmentation.weight > 0:
            self._add_segmentation(terms, output, batch)
        if self.weights.geometry > 0:
            self._add_geometry(terms, output, batch)
        return terms

    def shared_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters of the VLM, which every loss reaches."""
        return self.model.shared_parameters()

    def _sam_features(self, batch: RobotBatch) -> Tensor | None:
        if self.weights.segmentation.weight == 0:
            return None
        features = _features(batch, MASK_FEATURES, "segmentation")
        return crop_image_features(features, batch.crop_boxes).to(self.model.seg_token.dtype)

    def _add_segmentation(self, terms: Terms, output: VLAOutput, batch: RobotBatch) -> None:
        if output.fine_logits is None or output.coarse_logits is None or batch.masks is None:
            raise DataError("The segmentation loss has a weight, but the batch has no masks.")
        weights = self.weights.segmentation
        focal, kl = losses.focal(output.fine_logits, batch.masks), losses.kl_divergence(output.fine_logits, batch.masks)
        segmentation = weights.focal * focal + weights.kl * kl
        if weights.coarse > 0:
            coarse = weights.focal * losses.focal(output.coarse_logits, batch.masks)
            coarse = coarse + weights.kl * losses.kl_divergence(output.coarse_logits, batch.masks)
            segmentation = segmentation + weights.coarse * coarse
            terms.logged["loss/coarse"] = coarse
        terms.weighted["segmentation"] = weights.weight * segmentation
        terms.logged |= {"loss/segmentation": segmentation, "loss/focal": focal, "loss/kl": kl}

    def _add_geometry(self, terms: Terms, output: VLAOutput, batch: RobotBatch) -> None:
        if output.geometry is None:
            raise RuntimeError("geometry was requested, but the model returned none")
        name = self.weights.geometry_features
        target = crop_to_patches(_features(batch, name, "geometry"), batch.crop_boxes, output.geometry.shape[2])
        width = target.shape[-1]
        if width != output.geometry.shape[-1]:
            raise DataError(
                f"The features {name} have width {width}, the model projects to {output.geometry.shape[-1]}.",
                f"Set model.geometry_width={width}, or name other features in loss.geometry_features.",
            )
        geometry = losses.cosine_alignment(output.geometry, target)
        terms.weighted["geometry"] = self.weights.geometry * geometry
        terms.logged["loss/geometry"] = geometry


Objective = PretrainObjective | PosttrainObjective


def _features(batch: RobotBatch, name: str, loss: str) -> Tensor:
    """A field of cached features as float32, (B, V, C, G, G) or (B, V, N, T). Raises DataError if it is
    missing."""
    if name not in batch.features:
        cached = f"only {', '.join(batch.features)}" if batch.features else "none"
        raise DataError(
            f"The {loss} loss has a weight and needs the cached features {name}; the batch has {cached}.",
            "Add their teacher to the recipe's cache, or set the weight to 0.",
        )
    return dequantise(batch.features[name])


def _total_and_log(terms: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    total = terms.total
    return total, {"loss": total.detach()} | {name: value.detach() for name, value in terms.logged.items()}
