"""PokeVLA: PokeVLM with SEG and action queries, coarse-to-fine masks, geometry projector and action head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pokevla.errors import UsageError
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.precision import ExactBuffers
from pokevla.model.presets import PokeVLAConfig
from pokevla.model.projectors import GeometryProjector
from pokevla.model.seeding import reset_fan_in, seeded
from pokevla.model.segmentation import build_mask_decoder, build_prompt_encoder, decode_coarse_to_fine
from pokevla.model.sequence import SequenceLayout, TextInputs, take_rows
from pokevla.model.vlm import PokeVLM, check_text
from pokevla.parts import ACTION_HEADS, get_part


@dataclass
class VLAOutput:
    """Result of `PokeVLA.forward`."""

    actions: Tensor  # (B, K, A) normalised
    coarse_logits: Tensor | None  # (B, V, M, M), None without SAM features
    fine_logits: Tensor | None  # (B, V, M, M)
    vision_hidden_states: Tensor  # (B, V, P, D), last layer
    seg_hidden_state: Tensor | None  # (B, D), last layer; None for a sequence without <SEG>
    geometry: Tensor | None  # (B, V, P, T), None if not requested


def _mlp(input_dim: int, hidden_dim: int, output_dim: int, activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Linear(input_dim, hidden_dim), activation(), nn.Linear(hidden_dim, output_dim))


class PokeVLA(ExactBuffers):
    """The vision-language-action model of the paper, section V."""

    def __init__(self, config: PokeVLAConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        width = config.vlm.language_model.hidden_size
        segmentation, head = config.segmentation, config.action_head
        _check_layers(config)
        self.vlm = PokeVLM(config.vlm, seed)
        with seeded(seed, "tokens"):  # N(0, 0.02) like Qwen's embedding rows
            self.seg_token = nn.Parameter(torch.empty(width).normal_(std=0.02))
            self.action_queries = nn.Parameter(torch.empty(head.num_queries, width).normal_(std=0.02))
        self.seg_token.requires_grad_(config.seg_token)
        if head.zero_queries:
            nn.init.zeros_(self.action_queries).requires_grad_(False)
        with seeded(seed, "segmentation"):
            self.seg_projector = _mlp(width, width, segmentation.embed_dim, nn.ReLU)  # LISA's text_hidden_fcs
            self.coarse_prompt_encoder = build_prompt_encoder(segmentation)
            self.coarse_mask_decoder = build_mask_decoder(segmentation)
            self.fine_prompt_encoder = build_prompt_encoder(segmentation)
            self.fine_mask_decoder = build_mask_decoder(segmentation)
        # Each stage has its own dense prompt: the no-mask vector (coarse), the mask convolutions (fine).
        self.coarse_prompt_encoder.no_mask_embed.requires_grad_(True)
        self.fine_prompt_encoder.mask_embed.requires_grad_(True)
        with torch.no_grad():  # both stages use the same position code
            self.fine_prompt_encoder.shared_embedding.positional_embedding.copy_(
                self.coarse_prompt_encoder.shared_embedding.positional_embedding
            )
        with seeded(seed, "geometry"):
            self.geometry_projector = GeometryProjector(width, config.geometry.target_dim)
        with seeded(seed, "action"):
            self.proprio_projector = _mlp(head.proprio_dim, width, width, nn.GELU)
            self.action_head = get_part("model.head", head.kind, ACTION_HEADS)(head, width)
        if config.vlm.linear_init == "fan_in":
            for name, part in self.named_children():
                if name not in ("vlm", "geometry_projector"):  # already initialised; Xavier, as in Spatial Forcing
                    with seeded(seed, f"fan_in.{name}"):
                        reset_fan_in(part)
        if not config.vlm.language_model.tie_embeddings:  # PokeVLA predicts no text
            self.vlm.language_model.lm_head.requires_grad_(False)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        proprio: Tensor,
        sam_features: Tensor | None = None,
        *,
        with_geometry: bool = True,
        text: TextInputs | None = None,
    ) -> VLAOutput:
        """Predict an action chunk, and the auxiliary outputs that training supervises.

        The head and the mask decoders compute in the number format of their own weights, which may be wider than that
        of the language model.

        Args:
            pixel_values: (B, V, 3, S, S) in [0, 1], views in the order of the embodiment.
            input_ids, attention_mask: (B, T), the prompt, right padded.
            proprio: (B, P) normalised.
            sam_features: (B, V, C, G, G) SAM image embeddings; without them no masks are decoded (inference).
            with_geometry: project the vision states for the geometry loss; False at inference.
            text: what `embed_text` has returned for these `input_ids`, to be used again.

        Raises:
            UsageError: a tensor has the wrong shape.
        """
        self._check(pixel_values, proprio, sam_features)
        # Last view first: the main view is then right before the text, where pre-training has its only image. In the
        # opposite order the pre-trained model reads LIBERO's wrist view only (docs/model.md).
        vision = self.vlm.encode_images(pixel_values.flip(1))
        check_text(input_ids, attention_mask, pixel_values.shape[0])
        text = text or self.embed_text(input_ids, attention_mask)
        number_format = _dtype_of(self.proprio_projector)
        proprio_token = self.proprio_projector(proprio.to(number_format))[:, None]
        conditions = self._run_sequence(vision, text, proprio_token)
        last = conditions[-1]
        read = conditions if self.config.action_head.condition == "per_layer" else [last]
        spread = self._spread([condition.to(number_format) for condition in read])
        actions = self.action_head(spread, proprio_token)
        coarse = fine = None
        if sam_features is not None:
            if last.seg is None:
                raise UsageError("Masks are decoded from <SEG>, which this model does not have.", "Give no features.")
            coarse, fine = decode_coarse_to_fine(
                self.seg_projector(last.seg.to(_dtype_of(self.seg_projector))),
                sam_features,
                (self.coarse_prompt_encoder, self.coarse_mask_decoder),
                (self.fine_prompt_encoder, self.fine_mask_decoder),
            )
        geometry, layer = None, self.config.geometry.layer
        if with_geometry:
            aligned = last if layer is None else conditions[layer - 1]
            geometry = self.geometry_projector(self._views(aligned.vision))
        return VLAOutput(actions, coarse, fine, self._views(last.vision), last.seg, geometry)

    def _run_sequence(self, vision: Tensor, text: TextInputs, proprio_token: Tensor) -> list[HeadCondition]:
        """Conditions from every layer that is read, the last one last; or only from the last."""
        head, num_patches = self.config.action_head, vision.shape[1]
        if head.proprio_in_sequence:  # right behind the patches (OpenVLA-OFT)
            vision = torch.cat([vision, proprio_token.to(vision.dtype)], dim=1)
        all_layers = head.condition == "per_layer" or self.config.geometry.layer is not None
        states = self.vlm.run_embedded(vision, text, all_layers=all_layers)
        return [self._condition(state, text.layout, num_patches) for state in states]

    def _condition(self, state: Tensor, layout: SequenceLayout, num_patches: int) -> HeadCondition:
        """Split one layer's states (B, L, D) by position into vision (B, N, D), queries (B, Q, D) and SEG (B, D)."""
        tail, seg = take_rows(state, layout.tail_positions), self.config.seg_token
        return HeadCondition(
            vision=state[:, layout.vision_slice][:, :num_patches],  # without the proprio token
            queries=tail[:, 1:] if seg else tail,
            seg=tail[:, 0] if seg else None,
        )

    def _views(self, vision: Tensor) -> Tensor:
        """(B, V * P, D) -> (B, V, P, D), in the order of the embodiment."""
        return vision.view(vision.shape[0], self.config.num_views, -1, vision.shape[-1]).flip(1)

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> TextInputs:
        """Embeddings and layout of prompts (B, T) with SEG and the action queries after them. They depend on the
        weights: keep them only while these do not change."""
        check_text(input_ids, attention_mask, input_ids.shape[0])
        tail = self.action_queries
        if self.config.seg_token:
            tail = torch.cat([self.seg_token[None], tail])
        num_vision = self.config.num_views * self.config.vlm.num_patches
        num_vision += self.config.action_head.proprio_in_sequence  # its token counts as a patch
        return self.vlm.embed_text(input_ids, attention_mask, num_vision, tail.expand(input_ids.shape[0], -1, -1))

    def _spread(self, conditions: list[HeadCondition]) -> list[HeadCondition]:
        """One condition per head layer: head layer i of H reads LM layer ceil((i + 1) * L / H), 1-based."""
        num_head, num_states = self.config.action_head.num_layers, len(conditions)
        return [conditions[-(-(i + 1) * num_states // num_head) - 1] for i in range(num_head)]

    def _check(self, pixel_values: Tensor, proprio: Tensor, sam_features: Tensor | None) -> None:
        config = self.config
        if pixel_values.ndim < 2 or pixel_values.shape[1] != config.num_views:
            raise UsageError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, this model takes {config.num_views} views "
                "on axis 1."
            )
        batch = pixel_values.shape[0]
        if proprio.shape != (batch, config.action_head.proprio_dim):
            raise UsageError(
                f"proprio has shape {tuple(proprio.shape)}, this model takes "
                f"({batch}, {config.action_head.proprio_dim})."
            )
        grid, channels = config.segmentation.grid, config.segmentation.embed_dim
        expected = (batch, config.num_views, channels, grid, grid)
        if sam_features is not None and sam_features.shape != expected:
            raise UsageError(
                f"sam_features has shape {tuple(sam_features.shape)}, this model takes {expected}.",
                "Build the feature cache with the teacher of this preset.",
            )

    def shared_parameters(self) -> list[nn.Parameter]:
        """The trainable parameters of the VLM. All three losses reach each of them."""
        return [parameter for parameter in self.vlm.parameters() if parameter.requires_grad]

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """See `PokeVLM.set_activation_checkpointing`."""
        self.vlm.set_activation_checkpointing(enabled)


def _dtype_of(part: nn.Module) -> torch.dtype:
    return next(part.parameters()).dtype


def _check_layers(config: PokeVLAConfig) -> None:
    """What joins the parts of a PokeVLA.

    Raises:
        UsageError: names the fields in conflict.
    """
    depth, layer = config.vlm.language_model.num_layers, config.geometry.layer
    if layer is not None and not 1 <= layer <= depth:
        raise UsageError(
            f"geometry.layer is {layer}, the language model has {depth} layers.", f"Choose 1 to {depth}, or the last."
        )
    if config.action_head.kind == "poke" and config.action_head.seg_injection and not config.seg_token:
        raise UsageError(
            "The head attends to <SEG>, but the sequence has none.", "Switch seg_injection off, or seg_token on."
        )
