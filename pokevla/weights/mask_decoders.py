"""Mask decoders that start from published SAM weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pokevla.errors import CheckpointError
from pokevla.model.presets import SegmentationConfig
from pokevla.model.vla import PokeVLA
from pokevla.weights.conversion.importing import open_part
from pokevla.weights.formats.sam import KIND, OF_THE_ENCODER, decoder_shapes, our_name
from pokevla.weights.named_tensors import Weights, refuse_non_finite

_REMEDY = "Name the SAM checkpoint of the cached features (pocket: ViT-B, L or H), or set model.sam to null."
_PARTS = ("prompt_encoder", "mask_decoder")


def open_mask_decoder(config: SegmentationConfig, path: Path) -> Weights:
    """Prompt encoder and mask decoder of a SAM checkpoint, of any published layout or imported, compared with the sizes
    of `config` by the file's header. The image encoder in it is left out: it is a teacher.

    Raises:
        CheckpointError: there is none, or a tensor is missing, unknown or of another shape (the message names it and
            both shapes).
    """
    try:
        return open_part(KIND, path, decoder_shapes(config), left_out=OF_THE_ENCODER)
    except CheckpointError as error:
        raise CheckpointError(f"model.sam: {error.message}", _REMEDY) from error


@torch.no_grad()
def start_mask_decoders(model: PokeVLA, path: Path) -> None:
    """Fill both prompt encoders and mask decoders of `model`, the Fourier matrix included, from a SAM checkpoint.

    Both stages start from the same weights. Memory: one tensor.

    Raises:
        CheckpointError: as `open_mask_decoder`, or a number is not finite.
    """
    weights = open_mask_decoder(model.config.segmentation, path)
    for targets in _stages(model):
        for name, target in targets.items():
            value = weights.read(our_name(name))
            refuse_non_finite(f"model.sam: {path}: {name}", value, _REMEDY)
            target.copy_(value)


def _stages(model: PokeVLA) -> list[Mapping[str, Tensor]]:
    """Parameters and buffers of the coarse and of the fine stage, by their names in SAM."""
    modules: list[dict[str, nn.Module]] = [
        {part: model.get_submodule(f"{stage}_{part}") for part in _PARTS} for stage in ("coarse", "fine")
    ]
    return [
        {f"{part}.{name}": value for part, module in stage.items() for name, value in module.state_dict().items()}
        for stage in modules
    ]
