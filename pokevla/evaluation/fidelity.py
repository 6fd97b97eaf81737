"""What a codec of the feature cache costs a given model: changes of features, masks and geometry loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pokevla.data.batch import QuantisedFeatures
from pokevla.data.images.transforms import centre_crop_box
from pokevla.errors import UsageError
from pokevla.features.cache_verify import Recomputed, least_cosine
from pokevla.features.codec import CODECS, codecs_for, dequantise
from pokevla.features.feature_crop import crop_image_features, crop_to_patches
from pokevla.features.layout import FieldLayout
from pokevla.model.vla import VLAOutput
from pokevla.policy.policy import Policy
from pokevla.recipe.kinds import training_of
from pokevla.recipe.sections import LossConfig
from pokevla.runs.directory import holds_recipe, read_run_recipe
from pokevla.training.objectives.losses import cosine_alignment
from pokevla.training.objectives.objective import MASK_FEATURES


@dataclass(frozen=True)
class Fidelity:
    """One field in one codec, against the teacher's own float32 output."""

    field: str
    codec: str
    bytes_per_sample: int
    relative_l2: float
    """|stored - exact| / |exact| over all samples."""
    least_cosine: float
    """Of the worst cell or token."""
    mask_change: float | None = None
    """Mean change of the fine mask's logits, over their mean size."""
    mask_iou: float | None = None
    """Overlap of the masks (logit above 0) before and after, mean over the views in which one of them is not empty."""
    alignment_change: float | None = None
    """Mean change of the geometry loss of a sample, without sign. The loss is 1 - cosine: 0 to 2."""


def measure_fidelity(recomputed: Recomputed, run: Path) -> list[Fidelity]:
    """Every field in every codec that a recipe can choose, through the model of `run`: its masks decode from the field
    `sam`, its geometry loss aligns with the field that its recipe names.

    Raises:
        UsageError: the run is a policy of another project, or of another robot.
        CheckpointError: it is not a policy.
    """
    policy = Policy.from_pretrained(run)
    if not isinstance(policy, Policy):
        raise UsageError(f"{run} is a policy of another project: it reads no teacher features.", "Name a run of ours.")
    policy.model.to(policy.model.seg_token.device)  # the parts that acting does not need
    audit = _Audit(policy, recomputed, _geometry_field(run))
    return [
        audit.measure(field, codec)
        for field, exact in recomputed.fresh.items()
        for codec in codecs_for(tuple(exact.shape[2:]))
    ]


def _geometry_field(run: Path) -> str:
    recipe = training_of(read_run_recipe(run)) if holds_recipe(run) else None
    weights = recipe.loss_weights if recipe is not None else None
    return (weights or LossConfig()).geometry_features


@dataclass(frozen=True)
class _Audit:
    policy: Policy
    recomputed: Recomputed
    geometry_field: str

    def measure(self, field: str, codec: str) -> Fidelity:
        exact = self.recomputed.fresh[field]
        stored = _through(exact, field, codec)
        relative = torch.linalg.vector_norm(stored - exact) / torch.linalg.vector_norm(exact).clamp_min(1e-30)
        layout = FieldLayout(field, field, tuple(exact.shape[1:]), codec)
        change = iou = alignment = None
        if field == MASK_FEATURES:
            change, iou = self._masks(exact, stored)
        if field == self.geometry_field:
            alignment = self._alignment(exact, stored)
        return Fidelity(
            field, codec, layout.num_bytes, relative.item(), least_cosine(stored, exact), change, iou, alignment
        )

    def _masks(self, exact: Tensor, stored: Tensor) -> tuple[float, float | None]:
        changes, sizes, ious = [], [], []
        for one, other in zip(self._logits(exact), self._logits(stored), strict=True):
            changes.append((one - other).abs().mean().item())
            sizes.append(one.abs().mean().item())
            for a, b in zip(one > 0, other > 0, strict=True):
                union = (a | b).sum().item()
                if union:
                    ious.append((a & b).sum().item() / union)
        return float(np.mean(changes) / max(np.mean(sizes), 1e-30)), float(np.mean(ious)) if ious else None

    def _logits(self, features: Tensor) -> Iterator[Tensor]:
        """Fine mask logits (V, M, M) of each sample."""
        for index in range(len(features)):
            output = self._run(index, features)
            if output.fine_logits is None:
                raise RuntimeError("the model got features and decoded no masks")
            yield output.fine_logits[0].float().cpu()

    def _alignment(self, exact: Tensor, stored: Tensor) -> float:
        changes = []
        for index in range(len(exact)):
            predicted = self._run(index, None).geometry
            if predicted is None:
                raise RuntimeError("the model was asked for geometry and gave none")
            losses = []
            for features in (exact, stored):
                one = features[index : index + 1].to(predicted.device)
                target = crop_to_patches(one, self._boxes(one), predicted.shape[2])
                losses.append(cosine_alignment(predicted, target).item())
            changes.append(abs(losses[1] - losses[0]))
        return float(np.mean(changes))

    def _run(self, index: int, features: Tensor | None) -> VLAOutput:
        recomputed, policy = self.recomputed, self.policy
        row = int(recomputed.rows[index])
        dataset, samples = recomputed.dataset, recomputed.dataset.rows
        frame = samples.number("frame", row)
        proprio = dataset.sequences.frames("proprio", samples.number("episode", row), frame, frame + 1)
        with torch.inference_mode():
            inputs = policy.prepare(recomputed.images[index][None], proprio, [samples.text("instruction", row)])
            cropped = None
            if features is not None:
                one = features[index : index + 1].to(inputs.pixel_values.device)
                cropped = crop_image_features(one, self._boxes(one))
            encoded = inputs.instructions
            return policy.model(
                inputs.pixel_values, encoded.input_ids, encoded.attention_mask, inputs.proprio, cropped,
                with_geometry=features is None, text=encoded.text,
            )  # fmt: skip

    def _boxes(self, features: Tensor) -> Tensor:
        """(1, V, 4) the test-time crop of every view."""
        box = torch.tensor(centre_crop_box(self.policy.crop_area), device=features.device)
        return box.expand(1, features.shape[1], 4)


def _through(exact: Tensor, field: str, codec: str) -> Tensor:
    """Features as a cache with this codec gives them back."""
    values, scales = CODECS[codec].quantise(exact.numpy(), field)
    stored = QuantisedFeatures(torch.from_numpy(values), None if scales is None else torch.from_numpy(scales), codec)
    return dequantise(stored)
