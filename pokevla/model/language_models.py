"""Language models: transformers' classes with random weights and rotary positions that bf16 cannot round."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from pokevla.model.presets import LanguageModelConfig


class FloatRotary(nn.Module):
    """Rotary angles of Qwen2 and Llama, computed from the configuration alone.

    transformers keeps the inverse frequencies in a buffer, which `module.bfloat16()` (DeepSpeed's bf16 engine)
    rounds: at position 600 the fastest angle would be off by more than a radian. This module has no buffer to round.
    """

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.theta = config.rope_theta
        self.head_dim = config.hidden_size // config.num_heads

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin (B or 1, L, head_dim) in x's dtype for position_ids (B or 1, L)."""
        exponent = torch.arange(0, self.head_dim, 2, device=x.device, dtype=torch.float32) / self.head_dim
        with torch.autocast(x.device.type, enabled=False):
            angles = position_ids[..., None].float() / self.theta**exponent
            both = torch.cat([angles, angles], dim=-1)
            return both.cos().to(x.dtype), both.sin().to(x.dtype)


def build_qwen2(config: LanguageModelConfig) -> Qwen2ForCausalLM:
    """Build Qwen2 with random weights and fused (SDPA) attention."""
    model = Qwen2ForCausalLM(Qwen2Config(**_settings(config)))
    model.model.register_module("rotary_emb", FloatRotary(config))
    return model


def build_llama(config: LanguageModelConfig) -> LlamaForCausalLM:
    """Build Llama with random weights and fused (SDPA) attention."""
    model = LlamaForCausalLM(LlamaConfig(**_settings(config)))
    model.model.register_module("rotary_emb", FloatRotary(config))
    return model


def _settings(config: LanguageModelConfig) -> dict[str, Any]:
    """Our sizes under the names that transformers' configurations of Qwen2 and Llama share."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.max_positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "rms_norm_eps": config.rms_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "attn_implementation": "sdpa",
    }
