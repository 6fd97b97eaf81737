"""Published weights that parts of a PokeVLM start from: `model.initial` of a recipe."""

from __future__ import annotations

import torch

from pokevla.model.vlm import PokeVLM
from pokevla.recipe.sections import InitialWeights
from pokevla.weights.conversion.importing import open_part
from pokevla.weights.formats.timm_vit import POSITIONS

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
    state = vlm.state_dict()
    if vlm.config.language_model.tie_embeddings:
        del state["language_model.lm_head.weight"]
    for field, (kind, prefix, resampled) in PARTS.items():
        place = getattr(initial, field)
        if place is None:
            continue
        targets = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        shapes = {name: tuple(value.shape) for name, value in targets.items()}
        weights = open_part(kind, place, shapes, resampled)
        for name, value in targets.items():
            value.copy_(weights.read(name))
