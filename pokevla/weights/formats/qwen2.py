"""Qwen2 and Qwen2.5 as published at the Hugging Face hub: one file or shards, word head tied or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pokevla.errors import CheckpointError
from pokevla.files.records import as_type
from pokevla.files.texts import write_json
from pokevla.model.language_models import build_qwen2
from pokevla.model.presets import LanguageModelConfig, config_of, preset
from pokevla.weights.conversion.sources import SAFETENSORS, WeightFiles
from pokevla.weights.conversion.weight_format import (
    Duplicate,
    Ignored,
    ImportRequest,
    Layout,
    NameMap,
    OurModel,
    Row,
    Shape,
    WeightFormat,
)
from pokevla.weights.formats.tokenizers import TOKENIZER, TOKENIZER_FILES, copy_tokenizer

KIND = "qwen2"
NAMES = NameMap(
    rows=(Row("model.{*}", "model.{*}"), Row("lm_head.weight", "lm_head.weight")),
    ignored=(
        Ignored("model.layers.{1}.self_attn.rotary_emb.inv_freq", "a constant, computed from rope_theta"),
        Ignored("model.rotary_emb.inv_freq", "a constant, computed from rope_theta"),
    ),
    duplicates=(Duplicate("lm_head.weight", of="model.embed_tokens.weight", written=False),),
)


@dataclasses.dataclass(frozen=True)
class _HfConfig:
    """The fields of a Qwen2 config.json that change what the model computes."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float
    max_position_embeddings: int = 32768
    tie_word_embeddings: bool = False
    rope_theta: float | None = None
    rope_parameters: dict[str, Any] | None = None  # transformers 5 writes the angle here
    rope_scaling: dict[str, Any] | None = None
    use_sliding_window: bool = False
    hidden_act: str = "silu"


def language_model_of(content: Mapping[str, Any], place: object) -> LanguageModelConfig:
    """Sizes from a config.json of transformers (or its `text_config`).

    Raises:
        CheckpointError: a field is missing, or the model computes something else than ours.
    """
    if content.get("model_type", "qwen2") != "qwen2":
        raise CheckpointError(f"{place}: the language model is {content['model_type']!r}, not qwen2.")
    config = as_type(dict(content), _HfConfig, str(place), kind=CheckpointError)
    rope = config.rope_parameters or {}
    theta = config.rope_theta if config.rope_theta is not None else rope.get("rope_theta", 10_000.0)
    scaled = config.rope_scaling is not None or rope.get("rope_type", "default") != "default"
    if scaled or config.use_sliding_window or config.hidden_act != "silu":
        raise CheckpointError(
            f"{place}: scaled rotary angles, sliding windows and other activations than silu are not supported."
        )
    return LanguageModelConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        intermediate_size=config.intermediate_size,
        rope_theta=float(theta),
        rms_eps=config.rms_norm_eps,
        tie_embeddings=config.tie_word_embeddings,
        max_positions=config.max_position_embeddings,
    )


def hf_config(config: LanguageModelConfig) -> dict[str, Any]:
    """config.json as transformers writes it, for sizes of ours."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.rms_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_embeddings,
        "use_sliding_window": False,
        "hidden_act": "silu",
    }


def read_config(request: ImportRequest) -> LanguageModelConfig:
    """Sizes of the preset, or those of the source's config.json."""
    if request.preset is not None:
        return preset(request.preset).vlm.language_model
    return language_model_of(request.source.read_config(), request.source.folder / "config.json")


def shapes(config: LanguageModelConfig) -> dict[str, Shape]:
    """Names and shapes of the language model, a tied word head left out."""
    with torch.device("meta"):
        state = build_qwen2(config).state_dict()
    tied = {"lm_head.weight"} if config.tie_embeddings else set()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if name not in tied}


def _describe(request: ImportRequest, config: LanguageModelConfig, folder: Path) -> dict[str, Any]:
    copy_tokenizer(request.source.folder, folder / TOKENIZER)
    return {"kind": KIND, "model": dataclasses.asdict(config)}


def _parse_config(values: Any) -> LanguageModelConfig:
    return config_of(LanguageModelConfig, values)


def _write_others(folder: Path, model: OurModel) -> None:
    published = model.published_config
    write_json(folder / "config.json", hf_config(model.config) if published is None else published)
    copy_tokenizer(model.folder / TOKENIZER, folder)


QWEN2 = WeightFormat(
    title="Qwen2",
    kind=KIND,
    layouts={
        "hf": Layout(
            title="transformers",
            files=(WeightFiles(SAFETENSORS),),
            names=NAMES,
            write_others=_write_others,
            other_files=("config.json", *TOKENIZER_FILES),
        )
    },
    read_config=read_config,
    shapes=shapes,
    describe=_describe,
    parse_config=_parse_config,
)
