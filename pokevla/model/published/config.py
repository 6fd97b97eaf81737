"""Sizes and quirks of the models that other projects have published, and their JSON form.

A quirk is something that the published code does and a reader would not expect; one switch each, with its source. All
are needed for the published weights. Line numbers are those of prismatic/extern/hf/modeling_prismatic.py in
moojink/openvla-oft @213c5ff (OFT) and OpenHelix-Team/VLA-Adapter @838a36d (VA). `BridgeQuirks` has those of
VLA-Adapter's action head, `ImagePath` and `PromptForm` of `pokevla.data.published` those of the inputs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from pokevla.errors import UsageError
from pokevla.model.heads.settings import BridgeQuirks, BridgeSettings, BridgeVariant
from pokevla.model.presets import (
    ActionHeadConfig,
    LanguageModelConfig,
    PokeVLMConfig,
    VisionTowerConfig,
    config_of,
    preset,
)
from pokevla.model.vision_encoders.backbone import IMAGENET_MEAN, IMAGENET_STD, SIGLIP_MEAN, SIGLIP_STD

Triple = tuple[float, float, float]
PLACEHOLDER_ID = 1
"""Id of the action tokens in the input text; training has others. Their embeddings are replaced (OFT 891, VA 826)."""
STOP_ID = 2
"""`STOP_INDEX`: Llama's end token; in Qwen2's vocabulary it is the character `#`."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of the pixels, for DINOv2 and SigLIP. preprocessor_config.json has DINOv2's rounded to bf16,
    because the image processor was made while torch's default type was bf16 (OFT, processing_prismatic.py)."""

    dino_mean: Triple = IMAGENET_MEAN
    dino_std: Triple = IMAGENET_STD
    siglip_mean: Triple = SIGLIP_MEAN
    siglip_std: Triple = SIGLIP_STD


@dataclass(frozen=True)
class SequenceForm:
    """How the input of the language model is put together and read."""

    learned_queries: bool
    """The action tokens are learned vectors (VLA-Adapter); False: placeholders (OpenVLA-OFT)."""
    proprio_token: bool
    """The robot's state is a token right after the patches (OFT 457); False: only the action head reads it (VA)."""
    zero_placeholders: bool = True
    """The embeddings of placeholders are zeros, so that only their positions differ (OFT 891); False: the embedding of
    PLACEHOLDER_ID."""
    stop_token: bool = True
    """A stop token follows the action tokens (OFT 743, VA 757). It matters where attention is bidirectional."""
    states_one_early: bool = True
    """The state of an action token is read one position before it, as for the next token; that of the last one is
    never read (OFT 914, VA 855)."""
    vision_from_start: bool = False
    """The vision states begin at the first text token, so that the last patch is never read (VA 858)."""
    bf16_proprio: bool = False
    """The state is rounded to bf16 before its projector (VA, action_heads.py 53)."""


@dataclass(frozen=True)
class PublishedConfig:
    """A whole model.

    `vlm.attention` and `language_model.rms_eps` hold two more quirks of OpenVLA-OFT: attention is bidirectional,
    although Llama is causal (moojink/transformers-openvla-oft @bc339d9, modeling_llama.py). The epsilon of the norms is
    transformers' default 1e-6, not Llama-2's 1e-5 (convert_openvla_weights_to_hf.py passes no text_config).
    """

    vlm: PokeVLMConfig
    action_head: ActionHeadConfig
    num_views: int
    sequence: SequenceForm
    normalisation: Normalisation = field(default_factory=Normalisation)
    max_length: int = 2048
    """Tokens of a sequence, vision and actions included (config.json, `llm_max_length`)."""

    @property
    def max_text_tokens(self) -> int:
        """Text tokens that fit beside everything else."""
        others = self.num_views * self.vlm.num_patches + int(self.sequence.proprio_token) + self.num_tail_tokens
        return self.max_length - others

    @property
    def num_tail_tokens(self) -> int:
        """Tokens after the text: actions and stop."""
        return self.action_head.num_queries + int(self.sequence.stop_token)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values that JSON can store."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> PublishedConfig:
        """Inverse of `to_dict`. Raises UsageError for unknown or missing fields, and for sizes that do not fit."""
        config = config_of(cls, values, "model")
        head = config.action_head
        if head.kind == "oft" and head.num_queries != head.chunk_length * head.action_dim:
            raise UsageError(
                f"model.action_head: a chunk of {head.chunk_length} actions of {head.action_dim} numbers does not fit "
                f"the head, which reads {head.num_queries} action tokens.",
                "Import the checkpoint again.",
            )
        return config


LIBERO_CHUNK, LIBERO_ACTION, LIBERO_PROPRIO, LIBERO_VIEWS = 8, 7, 8, 2
"""prismatic/vla/constants.py. That file picks the robot by words of the command line; here it is LIBERO's."""


def oft_config(
    dino: VisionTowerConfig, siglip: VisionTowerConfig, language_model: LanguageModelConfig
) -> PublishedConfig:
    """OpenVLA-OFT for LIBERO: L1 head, two views, proprio."""
    return PublishedConfig(
        vlm=PokeVLMConfig(dino.image_size, dino, siglip, language_model, attention="bidirectional"),
        action_head=ActionHeadConfig(
            num_layers=2, width=language_model.hidden_size, num_heads=1, num_queries=LIBERO_CHUNK * LIBERO_ACTION,
            action_dim=LIBERO_ACTION, proprio_dim=LIBERO_PROPRIO, chunk_length=LIBERO_CHUNK, kind="oft",
        ),
        num_views=LIBERO_VIEWS,
        sequence=SequenceForm(learned_queries=False, proprio_token=True),
    )  # fmt: skip


def adapter_config(
    dino: VisionTowerConfig,
    siglip: VisionTowerConfig,
    language_model: LanguageModelConfig,
    variant: BridgeVariant,
    num_queries: int = 64,
) -> PublishedConfig:
    """VLA-Adapter for LIBERO. One head block per layer of the language model; the head reads every layer."""
    return PublishedConfig(
        vlm=PokeVLMConfig(dino.image_size, dino, siglip, language_model, attention="causal"),
        action_head=ActionHeadConfig(
            num_layers=language_model.num_layers, width=language_model.hidden_size, num_heads=8,
            num_queries=num_queries, action_dim=LIBERO_ACTION, proprio_dim=LIBERO_PROPRIO, chunk_length=LIBERO_CHUNK,
            condition="per_layer", kind="bridge", bridge=BridgeSettings(variant, BridgeQuirks.published()),
        ),
        num_views=LIBERO_VIEWS,
        sequence=SequenceForm(
            learned_queries=True, proprio_token=False, vision_from_start=True, bf16_proprio=True
        ),
    )  # fmt: skip


def published_towers() -> tuple[VisionTowerConfig, VisionTowerConfig]:
    """DINOv2 and SigLIP of both models, which are those of the preset pocket."""
    vlm = preset("pocket").vlm
    return vlm.dino, vlm.siglip
