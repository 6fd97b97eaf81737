"""Published weights that parts of a PokeVLM start from: `model.initial` of a recipe."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pokevla.model.presets import PokeVLMConfig
from pokevla.model.vlm import PokeVLM
from pokevla.recipe.sections import InitialWeights
from pokevla.weights.conversion.importing import open_part
from pokevla.weights.formats.timm_vit import POSITIONS
from pokevla.weights.named_tensors import Weights

PARTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "dino": ("timm", "vision_backbone.dino_featurizer.", (POSITIONS,)),
    "siglip": ("timm", "vision_backbone.siglip_featurizer.", (POSITIONS,)),
    "language_model": ("qwen2", "language_model.", ()),
}
"""Field of `model.initial` -> kind of its weights, beginning of our names, grids that may have another size."""


@torch.no_grad()
def load_initial(vlm: PokeVLM, initial: InitialWeights) -> None:
    """Copy the weights that a recipe names into a model, one tensor at a time. Other parts keep their values.

    Raises:
        CheckpointError: a file is missing, damaged, unsafe, or of another kind or size.
    """
    for weights, targets in _opened_parts(vlm, initial):
        for name, value in targets.items():
            value.copy_(weights.read(name))


def check_initial(config: PokeVLMConfig, initial: InitialWeights) -> None:
    """Compare names and shapes of the weights that a recipe names with the model of `config`. Reads no values.

    Raises:
        CheckpointError: as `load_initial`.
    """
    with torch.device("meta"):
        vlm = PokeVLM(config)
    for _ in _opened_parts(vlm, initial):
        pass


def _opened_parts(vlm: PokeVLM, initial: InitialWeights) -> Iterator[tuple[Weights, dict[str, Tensor]]]:
    """The weights of each part that is named, and the model's tensors that they fill."""
    state = vlm.state_dict()
    if vlm.config.language_model.tie_embeddings:
        del state["language_model.lm_head.weight"]
    for field, (kind, prefix, resampled) in PARTS.items():
        place = getattr(initial, field)
        if place is None:
            continue
        targets = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        shapes = {name: tuple(value.shape) for name, value in targets.items()}
        yield open_part(kind, place, shapes, resampled), targets
