"""OpenVLA-OFT and VLA-Adapter: the same parts in another order, with the quirks of their published code."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pokevla.errors import UsageError
from pokevla.model.heads.condition import HeadCondition
from pokevla.model.published.config import PLACEHOLDER_ID, STOP_ID, PublishedConfig
from pokevla.model.seeding import seeded
from pokevla.model.sequence import SequenceLayout, take_rows
from pokevla.model.vlm import PokeVLM
from pokevla.parts import ACTION_HEADS, get_part


class PublishedVLA(nn.Module):
    """A vision-language-action model with published weights, for inference.

    Sequence: [text 0][patches of view 0][patches of view 1]..[proprio][text 1 ..][action tokens][stop].
    """

    def __init__(self, config: PublishedConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        head, width = config.action_head, config.vlm.language_model.hidden_size
        self.vlm = PokeVLM(config.vlm, seed)
        with seeded(seed, "published"):
            if config.sequence.learned_queries:
                self.action_queries = nn.Parameter(torch.empty(head.num_queries, width).normal_(std=0.02))
            self.proprio_projector = nn.Sequential(
                nn.Linear(head.proprio_dim, width), nn.GELU(), nn.Linear(width, width)
            )
            self.action_head = get_part("action head", head.kind, ACTION_HEADS)(head, width)
        self.set_normalisation()

    def set_normalisation(self, device: torch.device | str | None = None) -> None:
        """Give the image encoders the mean and deviation of the configuration, on `device` or where theirs are."""
        backbone, numbers = self.vlm.vision_backbone, self.config.normalisation
        for name, rows in (
            ("mean", (numbers.dino_mean, numbers.siglip_mean)),
            ("std", (numbers.dino_std, numbers.siglip_std)),
        ):
            old: Tensor = getattr(backbone, name)
            values = torch.tensor(rows, dtype=torch.float32, device=device or old.device)
            setattr(backbone, name, values.view(old.shape))

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, proprio: Tensor) -> Tensor:
        """Predict an action chunk.

        Args:
            pixel_values: (B, V, 3, S, S) in [0, 1].
            input_ids, attention_mask: (B, T) the prompt, right padded.
            proprio: (B, P) normalised.

        Returns:
            (B, K, A) normalised actions.

        Raises:
            UsageError: a tensor has the wrong shape.
        """
        form = self.config.sequence
        self._check(pixel_values, proprio)
        state = self._project(proprio)
        vision = self.vlm.encode_images(pixel_values)
        num_patches = vision.shape[1]
        if form.proprio_token:
            vision = torch.cat([vision, state.to(vision.dtype)], dim=1)
        states, layout = self.vlm.run_sequence(
            vision, input_ids, attention_mask, self._tail(input_ids.shape[0]),
            all_layers=self.config.action_head.condition == "per_layer",
        )  # fmt: skip
        needed = self.config.action_head.num_layers
        conditions = [self._condition(one, layout, num_patches) for one in states]
        return self.action_head(conditions if len(conditions) == needed else conditions[-1:] * needed, state)

    def _project(self, proprio: Tensor) -> Tensor:
        """(B, P) -> (B, 1, D)."""
        weight = self.proprio_projector.get_parameter("0.weight")
        if self.config.sequence.bf16_proprio:
            proprio = proprio.to(torch.bfloat16)
        return self.proprio_projector(proprio.to(weight.dtype))[:, None]

    def _tail(self, batch: int) -> Tensor:
        """Embeddings after the text (B, Q or Q + 1, D)."""
        form, count = self.config.sequence, self.config.action_head.num_queries
        embed = self.vlm.language_model.get_input_embeddings()
        device = embed.weight.device
        if form.learned_queries:
            tokens = self.action_queries
        elif form.zero_placeholders:
            tokens = embed.weight.new_zeros(count, embed.weight.shape[1])
        else:
            tokens = embed(torch.full((count,), PLACEHOLDER_ID, device=device))
        if form.stop_token:
            tokens = torch.cat([tokens, embed(torch.tensor([STOP_ID], device=device)).to(tokens.dtype)])
        return tokens.expand(batch, -1, -1)

    def _condition(self, state: Tensor, layout: SequenceLayout, num_patches: int) -> HeadCondition:
        """What the head reads of one layer's states (B, L, D)."""
        form, count = self.config.sequence, self.config.action_head.num_queries
        positions = layout.tail_positions[:, :count] - int(form.states_one_early)
        start = 0 if form.vision_from_start else 1
        return HeadCondition(
            vision=state[:, start : start + num_patches],
            queries=take_rows(state, positions),
            seg=None,
        )

    def _check(self, pixel_values: Tensor, proprio: Tensor) -> None:
        views, width = self.config.num_views, self.config.action_head.proprio_dim
        if pixel_values.ndim != 5 or pixel_values.shape[1] != views:
            raise UsageError(f"pixel_values has shape {tuple(pixel_values.shape)}, this model takes {views} views.")
        if proprio.shape != (pixel_values.shape[0], width):
            raise UsageError(
                f"proprio has shape {tuple(proprio.shape)}, this model takes ({pixel_values.shape[0]}, {width})."
            )
