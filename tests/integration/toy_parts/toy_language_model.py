"""A language model: Llama, the architecture of SmolLM2."""

from __future__ import annotations

from transformers import LlamaConfig, LlamaForCausalLM

from pokevla.model.language_models import FloatRotary
from pokevla.model.presets import LanguageModelConfig
from pokevla.parts import LANGUAGE_MODELS


def build_llama(config: LanguageModelConfig) -> LlamaForCausalLM:
    """Build Llama of random weights, with positions that bf16 does not round."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            max_position_embeddings=config.max_positions,
            tie_word_embeddings=config.tie_embeddings,
            attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]  (accepted by the base class)
        )
    )
    model.model.register_module("rotary_emb", FloatRotary(config))
    return model


LANGUAGE_MODELS["llama"] = build_llama
