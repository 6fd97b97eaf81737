"""PokeVLM: fused DINOv2 + SigLIP features, Prismatic's projector, a language model."""

from __future__ import annotations

import torch
from torch import Tensor

from pokevla.errors import UsageError
from pokevla.model.packing import PackedLayout, assemble_packed, packed_attention_mask
from pokevla.model.precision import ExactBuffers
from pokevla.model.presets import PokeVLMConfig, check_config
from pokevla.model.projectors import PrismaticProjector
from pokevla.model.seeding import reset_fan_in, seeded, smooth_noise, standardise_outputs
from pokevla.model.sequence import SequenceLayout, TextInputs, assemble, attention_mask_for, splice_layout
from pokevla.model.vision_encoders.backbone import VisionBackbone
from pokevla.parts import LANGUAGE_MODELS, get_part


class PokeVLM(ExactBuffers):
    """The vision-language model. Questions have one view, robots several: each view adds tokens to the sequence."""

    def __init__(self, config: PokeVLMConfig, seed: int = 0) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        self.vision_backbone = VisionBackbone(config, seed)
        with seeded(seed, "projector"):
            self.projector = PrismaticProjector(self.vision_backbone.width, config.language_model.hidden_size)
        with seeded(seed, "language_model"):
            build = get_part("model.language_model", config.language_model.kind, LANGUAGE_MODELS)
            self.language_model = build(config.language_model)
        if config.linear_init == "fan_in":
            for name, part in self.named_children():
                with seeded(seed, f"fan_in.{name}"):
                    reset_fan_in(part)
            self._standardise_projector(seed)

    @torch.no_grad()
    def _standardise_projector(self, seed: int) -> None:
        """Make the randomly initialised projector's outputs have mean 0 and deviation 1. Does nothing on the meta
        device."""
        layers = [self.projector.fc1, self.projector.fc2, self.projector.fc3]
        if not layers[0].weight.is_meta:
            with seeded(seed, "calibration"):
                pictures = smooth_noise(16, self.config.image_size)
            standardise_outputs(layers, self.vision_backbone(pictures))

    def encode_images(self, pixel_values: Tensor, present: Tensor | None = None) -> Tensor:
        """Embed views: pixel_values (B, V, 3, S, S) in [0, 1] -> (B, V * P, D), views in order. V may be 0.

        Args:
            present: (N,) int64 numbers of the views to encode, of the B * V in order; others get zeros. At least one,
                so that every parameter has a gradient. None: all.
        """
        size = self.config.image_size
        if pixel_values.ndim != 5 or pixel_values.shape[2:] != (3, size, size):
            raise UsageError(
                f"pixel_values has shape {tuple(pixel_values.shape)}, this model takes (B, V, 3, {size}, {size}).",
                "Resize the images to the preset's image_size.",
            )
        batch, views = pixel_values.shape[:2]
        if views == 0:
            return self.projector.fc3.weight.new_zeros(batch, 0, self.config.language_model.hidden_size)
        images = pixel_values.flatten(0, 1)
        tokens = self.projector(self.vision_backbone(images if present is None else images.index_select(0, present)))
        if present is not None:
            tokens = tokens.new_zeros(batch * views, *tokens.shape[1:]).index_copy(0, present, tokens)
        return tokens.view(batch, views * tokens.shape[1], -1)

    def embed_text(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        num_vision: int,
        tail: Tensor | None = None,
        row_vision: Tensor | None = None,
    ) -> TextInputs:
        """Look up the embeddings of texts (B, T) and lay out their sequences with `num_vision` vision tokens (or the
        first `row_vision` (B,) of them) and a `tail` (B, S, D)."""
        layout = splice_layout(attention_mask, num_vision, 0 if tail is None else tail.shape[1], row_vision)
        return TextInputs(self.language_model.get_input_embeddings()(input_ids), tail, layout)

    def run_sequence(
        self,
        vision: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        tail: Tensor | None = None,
        *,
        row_vision: Tensor | None = None,
        all_layers: bool = False,
    ) -> tuple[list[Tensor], SequenceLayout]:
        """Splice the embeddings together and run the language model without its head.

        Args:
            vision: (B, N, D) from `encode_images`.
            input_ids, attention_mask: (B, T), text only, right padded.
            tail: (B, S, D) embeddings appended after each row's last real token, or None.
            row_vision: (B,) int64 how many of the N tokens are in each row's sequence, the first ones; None: all.
            all_layers: return the states after every layer instead of only the last.

        Returns:
            a list of hidden states (B, L, D), the last one after the final norm, and the layout.
        """
        check_text(input_ids, attention_mask, vision.shape[0])
        text = self.embed_text(input_ids, attention_mask, vision.shape[1], tail, row_vision)
        return self.run_embedded(vision, text, all_layers=all_layers), text.layout

    def run_embedded(self, vision: Tensor, text: TextInputs, *, all_layers: bool = False) -> list[Tensor]:
        """`run_sequence` with texts from `embed_text`; returns the hidden states."""
        layout = text.layout
        output = self.language_model.model(
            inputs_embeds=assemble(text.embeddings, vision, text.tail, layout),
            attention_mask=self.mask_by_layer_type(self.mask_of(layout)),
            position_ids=layout.position_ids,
            use_cache=False,
            output_hidden_states=all_layers,
        )
        if all_layers:  # drop the embeddings; transformers' last entry is already normalised
            return list(output.hidden_states[1:])
        return [output.last_hidden_state]

    def run_packed(self, vision: Tensor, input_ids: Tensor, layout: PackedLayout) -> Tensor:
        """Run the language model without its head on sequences of several samples each, none of which sees another.

        Args:
            vision: (B, N, D) from `encode_images`.
            input_ids: (B, T), text only, right padded.
            layout: from `packed_layout`.

        Returns:
            hidden states (R, L, D) after the final norm.
        """
        check_text(input_ids, input_ids, vision.shape[0])
        self._check_kernel()
        text = self.language_model.get_input_embeddings()(input_ids)
        output = self.language_model.model(
            inputs_embeds=assemble_packed(text, vision, layout),
            attention_mask=self.mask_by_layer_type(packed_attention_mask(layout, self.config.attention)),
            position_ids=layout.position_ids,
            use_cache=False,
        )
        return output.last_hidden_state

    def mask_of(self, layout: SequenceLayout) -> Tensor | None:
        """The attention mask. Raises UsageError if the selected kernel would silently ignore it."""
        self._check_kernel()
        return attention_mask_for(layout, self.config.attention)

    def _check_kernel(self) -> None:
        """Raise UsageError if the selected kernel would silently ignore a mask, or the lack of one."""
        kernel = self.language_model.config._attn_implementation
        if kernel != "sdpa":
            # transformers' eager attention without a mask attends to everything; flash-attn takes no (B, 1, L, L) mask,
            # nor the mask of a KV cache. SDPA without a mask already runs PyTorch's own flash kernel.
            raise UsageError(
                f"{self.config.attention} attention does not work with the {kernel} kernel.", "Choose sdpa."
            )

    def mask_by_layer_type(self, mask: Tensor | None) -> Tensor | dict[str, Tensor | None] | None:
        """The mask in the form transformers' models expect: by layer type if their configuration has `layer_types`.

        Raises:
            UsageError: the language model has layers with sliding-window or linear attention.
        """
        layer_types = set(getattr(self.language_model.config, "layer_types", None) or ())
        if not layer_types <= {"full_attention"}:
            raise UsageError(
                f"The language model has layers of {', '.join(sorted(layer_types - {'full_attention'}))}.",
                "Choose one whose layers all attend to the whole sequence.",
            )
        return dict.fromkeys(layer_types, mask) if layer_types else mask

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits of every position: pixel_values (B, V, 3, S, S), text (B, T) right padded -> (B, V * P + T, vocab)."""
        states, _ = self.run_sequence(self.encode_images(pixel_values), input_ids, attention_mask)
        return self.language_model.lm_head(states[-1])

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Recompute activations of each transformer block in the backward pass instead of keeping them."""
        self.vision_backbone.set_checkpointing(enabled)
        if enabled:
            self.language_model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self.language_model.activation_checkpointing_disable()


def check_text(input_ids: Tensor, attention_mask: Tensor, batch: int) -> None:
    """Raise UsageError unless both text tensors are (B, T)."""
    if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape or input_ids.shape[0] != batch:
        raise UsageError(
            f"input_ids {tuple(input_ids.shape)} and attention_mask {tuple(attention_mask.shape)} "
            f"must both be (B, T) with B = {batch}, the number of image sets."
        )
