"""Which parts of a PokeVLA a policy puts on its device, and in which number format.

The VLM has nearly all weights and operations and computes in bf16 on a GPU; its norms sum in fp32 whatever the format
(RMSNorm of transformers, LayerNorm of torch), and rotary angles are computed in fp32. The action head and the proprio
projector stay in fp32: bf16 has a resolution of 1/256 near 1, which an action would keep to its end. Mask decoders,
which are for pictures only, are fp32 too, and like everything that acting does not need they stay where they are until
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from pokevla.model.vision_encoders.towers import VisionTower
from pokevla.model.vla import PokeVLA

ACTING_PARTS = ("vlm.", "seg_token", "action_queries", "proprio_projector.", "action_head.")
"""Beginnings of the names of all tensors that acting needs, and of some in the VLM that it does not need."""
MASK_PARTS = (
    "seg_projector.", "coarse_prompt_encoder.", "coarse_mask_decoder.", "fine_prompt_encoder.", "fine_mask_decoder.",
)  # fmt: skip
LOW_PRECISION = ("vlm.", "seg_token", "action_queries")
"""Beginnings of the names of all parameters that may compute in bf16."""


def dtype_for(device: torch.device | str) -> torch.dtype:
    """The number format of the VLM on a device: bf16 on a GPU; fp32 on a CPU, where bf16 is slower."""
    return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32


def place_for_acting(model: PokeVLA, device: torch.device | str, dtype: torch.dtype) -> None:
    """Move what acting needs to `device`, in place, the parameters of the VLM in `dtype` and all others in fp32.

    Everything else stays where it is: the mask decoders, the geometry projector, the idle blocks of the vision towers,
    and the output layer of the language model if it has weights of its own.
    """
    idle = _idle_names(model)
    _move(model, lambda name: name.startswith(ACTING_PARTS) and name not in idle, device, dtype)


def place_mask_parts(model: PokeVLA) -> None:
    """Move the mask decoders to the device of the model, in place and in fp32."""
    _move(model, lambda name: name.startswith(MASK_PARTS), model.seg_token.device, torch.float32)


@torch.no_grad()
def _move(model: nn.Module, is_chosen: Callable[[str], bool], device: torch.device | str, dtype: torch.dtype) -> None:
    for name, parameter in model.named_parameters():
        if is_chosen(name):
            low = name.startswith(LOW_PRECISION)
            parameter.data = parameter.data.to(device, dtype if low else torch.float32)
    for name, buffer in model.named_buffers():
        if is_chosen(name):  # constants such as image means and SAM's Fourier matrix: bf16 would change them
            buffer.data = buffer.data.to(device)


def _idle_names(model: PokeVLA) -> frozenset[str]:
    """Parameters of the VLM without influence on an action."""
    backbone, names = model.vlm.vision_backbone, set[str]()
    for tower, kind in backbone.towers.items():
        names |= {f"vlm.vision_backbone.{tower}.{name}" for name in _unused(kind, backbone.get_submodule(tower))}
    if not model.config.vlm.language_model.tie_embeddings:
        names |= {f"vlm.language_model.lm_head.{name}" for name, _ in _tensors(model.vlm.language_model.lm_head)}
    return frozenset(names)


def _unused(kind: VisionTower, encoder: nn.Module) -> Iterator[str]:
    return (name for name, _ in _tensors(encoder) if kind.is_unused(encoder, name))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()
