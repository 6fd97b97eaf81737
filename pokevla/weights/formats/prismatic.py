"""Prismatic VLMs with DINOv2, SigLIP and Qwen2.5: the checkpoints of their training, and the Hugging Face form.

Sources: github.com/TRI-ML/prismatic-vlms (prismatic/models/vlms/prismatic.py, training/strategies/fsdp.py),
github.com/Stanford-ILIAD/openvla-mini (prismatic/models/backbones/llm/qwen25.py,
vla-scripts/extern/convert_openvla_weights_to_hf.py, prismatic/extern/hf/configuration_prismatic.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pokevla.data.prompts import INSTRUCTION_TEMPLATE
from pokevla.errors import CheckpointError
from pokevla.files.texts import write_json, write_text
from pokevla.model.presets import (
    PRESET_NAMES,
    PokeVLMConfig,
    VisionTowerConfig,
    config_of,
    preset,
    to_dict,
)
from pokevla.model.tokenizers.loading import load_tokenizer
from pokevla.model.vlm import PokeVLM
from pokevla.weights.conversion.sources import SAFETENSORS, Source, WeightFiles
from pokevla.weights.conversion.weight_format import (
    Companion,
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
from pokevla.weights.formats import qwen2, timm_vit
from pokevla.weights.formats.tokenizers import TOKENIZER, TOKENIZER_FILES, copy_tokenizer, has_tokenizer

DINO, SIGLIP = "vision_backbone.dino_featurizer.", "vision_backbone.siglip_featurizer."
"""Beginnings of our names of the two towers."""
QWEN_SYSTEM_PROMPT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
"""Qwen2.5's default, which Prismatic's prompt builder writes (prompting/qwen_prompter.py)."""
_LLM = "model.llm_backbone.llm."
_ROTARY = "a constant, computed from rope_theta"
_VISION_ID = "dinosiglip-vit-so-224px"
_LLM_IDS = ("qwen25-0_5b-extra", "qwen25-0_5b-pure")
"""Ids of language models of our preset `pocket`. `extra` has 256 more tokens, in rows that `pure` cuts off."""
_PROJECTOR = "fused-gelu-mlp"

NATIVE_NAMES = NameMap(
    rows=(
        Row("model.projector.projector.0.{*}", "projector.fc1.{*}"),
        Row("model.projector.projector.2.{*}", "projector.fc2.{*}"),
        Row("model.projector.projector.4.{*}", "projector.fc3.{*}"),
        Row(_LLM + "{*}", "language_model.{*}"),
        Row("model.vision_backbone.dino_featurizer.{*}", DINO + "{*}"),
        Row("model.vision_backbone.siglip_featurizer.{*}", SIGLIP + "{*}"),
    ),
    ignored=(
        Ignored("optimizer.{*}", "state of the optimizer"),
        Ignored(_LLM + "model.layers.{1}.self_attn.rotary_emb.inv_freq", _ROTARY),
        Ignored(_LLM + "model.rotary_emb.inv_freq", _ROTARY),
    ),
    duplicates=(Duplicate(_LLM + "lm_head.weight", of=_LLM + "model.embed_tokens.weight", written=True),),
)
HF_NAMES = NameMap(
    rows=(
        # transformers renames "gamma", so the converter calls LayerScale's weight scale_factor
        Row("vision_backbone.featurizer.blocks.{1}.ls{2}.scale_factor", DINO + "blocks.{1}.ls{2}.gamma"),
        Row("vision_backbone.featurizer.{*}", DINO + "{*}"),
        Row("vision_backbone.fused_featurizer.{*}", SIGLIP + "{*}"),
        Row("projector.{*}", "projector.{*}"),
        Row("language_model.{*}", "language_model.{*}"),
    ),
    ignored=(
        Ignored("language_model.model.layers.{1}.self_attn.rotary_emb.inv_freq", _ROTARY),
        Ignored("language_model.model.rotary_emb.inv_freq", _ROTARY),
    ),
    duplicates=(
        Duplicate("language_model.lm_head.weight", of="language_model.model.embed_tokens.weight", written=False),
    ),
)


def shapes(config: PokeVLMConfig) -> dict[str, Shape]:
    """Names and shapes of a PokeVLM, a tied word head left out."""
    with torch.device("meta"):
        state = PokeVLM(config).state_dict()
    tied = {"language_model.lm_head.weight"} if config.language_model.tie_embeddings else set()
    return {name: tuple(tensor.shape) for name, tensor in state.items() if name not in tied}


def _read_config(request: ImportRequest) -> PokeVLMConfig:
    if request.preset is not None:
        return preset(request.preset).vlm
    source = request.source
    content = source.read_config()
    return _native_config(source, content) if source.layout == "native" else _hf_config(source, content)


def _native_config(source: Source, content: Mapping[str, Any]) -> PokeVLMConfig:
    """Sizes by the ids of a native config.json, which names its parts but holds no sizes."""
    model = content.get("model")
    if not isinstance(model, dict):
        raise CheckpointError(f"{source.place}: config.json has no section `model`: this is no Prismatic VLM.")
    given = tuple(model.get(key) for key in ("vision_backbone_id", "llm_backbone_id", "arch_specifier"))
    if given[0] != _VISION_ID or given[1] not in _LLM_IDS or not str(given[2]).endswith(_PROJECTOR):
        raise CheckpointError(
            f"{source.place} is a Prismatic VLM of {given[0]}, {given[1]}, {given[2]}; "
            f"only {_VISION_ID} with {' or '.join(_LLM_IDS)} and {_PROJECTOR} are known.",
            "If it has the size of a preset of ours, name it with --preset.",
        )
    return _with_vocabulary(source, _LLM, preset("pocket").vlm)


def _with_vocabulary(source: Source, prefix: str, config: PokeVLMConfig) -> PokeVLMConfig:
    embedding = source.tensors.get(f"{prefix}model.embed_tokens.weight")
    if embedding is None or not embedding.shape:
        return config
    language_model = dataclasses.replace(config.language_model, vocab_size=embedding.shape[0])
    return dataclasses.replace(config, language_model=language_model)


def _hf_config(source: Source, content: Mapping[str, Any]) -> PokeVLMConfig:
    """Sizes of the language model from `text_config`, those of the towers from their shapes."""
    text = content.get("text_config")
    if not isinstance(text, dict):
        raise CheckpointError(f"{source.place}: config.json has no section `text_config`: this is no Prismatic VLM.")
    arch = str(content.get("arch_specifier", _PROJECTOR))
    if not arch.endswith(_PROJECTOR):
        raise CheckpointError(f"{source.place} has the projector {arch}; only {_PROJECTOR} is known.")
    towers: dict[str, VisionTowerConfig] = {}
    for name, prefix in (("dino", "vision_backbone.featurizer."), ("siglip", "vision_backbone.fused_featurizer.")):
        given = {
            key.replace(".scale_factor", ".gamma"): shape for key, shape in timm_vit.shapes_of(source, prefix).items()
        }
        choices = [getattr(preset(one).vlm, name) for one in reversed(PRESET_NAMES)]
        towers[name] = timm_vit.tower_of(given, choices, source.place)
    language_model = qwen2.language_model_of(text, source.folder / "config.json")
    return PokeVLMConfig(
        image_size=towers["dino"].image_size,
        dino=towers["dino"],
        siglip=towers["siglip"],
        language_model=language_model,
    )


def _describe(request: ImportRequest, config: PokeVLMConfig, folder: Path) -> dict[str, Any]:
    origin = request.origin or request.source.place.name
    _put_tokenizer(request, config, folder)
    write_text(folder / "README.md", _card(request, origin))
    matching = [name for name in PRESET_NAMES if preset(name).vlm == config]
    return {
        "kind": "pokevlm",
        "preset": matching[0] if matching else None,
        "model": to_dict(config),
        "system_prompt": QWEN_SYSTEM_PROMPT,
        "crop_area": 1.0,
        "image_size": config.image_size,
        "image_filter": "bicubic",
        "blank_images": False,
        "instruction_template": INSTRUCTION_TEMPLATE,
        "step": 0,
        "run": origin,
    }


def _put_tokenizer(request: ImportRequest, config: PokeVLMConfig, folder: Path) -> None:
    place = request.companions.get("tokenizer", request.source.folder)
    if not has_tokenizer(place):
        raise CheckpointError(
            f"{place} holds no tokenizer (neither tokenizer.json nor vocab.json).",
            "Add --with tokenizer=FOLDER of Qwen2.5-0.5B (pokevla models get qwen2.5-0.5b).",
        )
    copy_tokenizer(place, folder / TOKENIZER)
    try:
        size = len(load_tokenizer(folder / TOKENIZER))
    except CheckpointError as error:  # about the copy, which has a temporary name
        raise CheckpointError(error.message.replace(str(folder / TOKENIZER), str(place)), error.remedy) from error
    if size > config.language_model.vocab_size:
        raise CheckpointError(
            f"The tokenizer in {place} has {size} tokens, the model {config.language_model.vocab_size}.",
            "Give the tokenizer that belongs to the model.",
        )


def _card(request: ImportRequest, origin: str) -> str:
    revision = f" at {request.revision}" if request.revision else ""
    parts = ", ".join(f"{name} from `{path.name}`" for name, path in request.companions.items())
    return "\n".join(
        [
            f"# {origin}",
            "",
            f"PokeVLM, imported from the published weights `{origin}`{revision}, layout {request.source.layout}.",
            *([f"With {parts}."] if parts else []),
            "",
            "Every tensor has the values and the type of its source, unless an image size was resampled.",
            "",
        ]
    )


def _parse_config(values: Any) -> PokeVLMConfig:
    return config_of(PokeVLMConfig, values)


def _ids(config: PokeVLMConfig) -> dict[str, Any]:
    """What the published config files call this model. Only the parts of `pocket` have official ids."""
    pocket = preset("pocket").vlm
    towers = (config.dino, config.siglip) == (pocket.dino, pocket.siglip)
    language_model = config.language_model == pocket.language_model
    return {
        "vision_backbone_id": _VISION_ID if towers else f"{_VISION_ID}-resized",
        "llm_backbone_id": _LLM_IDS[0] if language_model else "qwen25-resized",
        "arch_specifier": f"no-align+{_PROJECTOR}",
        "image_resize_strategy": "resize-naive",
        "llm_max_length": 2048,
    }


def _write_native(folder: Path, model: OurModel) -> None:
    published = model.published_config
    run = str(model.content.get("run", "pokevlm"))
    content = {"model": {"model_id": run, **_ids(model.config)}} if published is None else published
    write_json(folder / "config.json", content)


def _write_hf(folder: Path, model: OurModel) -> None:
    config: PokeVLMConfig = model.config
    published = model.published_config
    content = {
        "model_type": "prismatic",
        **_ids(config),
        "timm_model_ids": [config.dino.timm_name, config.siglip.timm_name],
        "timm_override_act_layers": [None, None],
        "image_sizes": [config.image_size, config.image_size],
        "use_fused_vision_backbone": True,
        "text_config": qwen2.hf_config(config.language_model),
        "output_projector_states": False,
    }
    write_json(folder / "config.json", content if published is None else published)
    copy_tokenizer(model.folder / TOKENIZER, folder)


PRISMATIC = WeightFormat(
    title="a Prismatic VLM",
    kind="pokevlm",
    layouts={
        "native": Layout(
            title="Prismatic's training",
            files=(WeightFiles(("checkpoints/latest-checkpoint.pt",), nesting=2),),
            names=NATIVE_NAMES,
            write_others=_write_native,
        ),
        "hf": Layout(
            title="Hugging Face",
            files=(WeightFiles(SAFETENSORS),),
            names=HF_NAMES,
            write_others=_write_hf,
            other_files=("config.json", *TOKENIZER_FILES),
        ),
    },
    read_config=_read_config,
    shapes=shapes,
    describe=_describe,
    parse_config=_parse_config,
    companions={
        "dino": Companion("the DINOv2 tower", "timm", DINO, (timm_vit.POSITIONS,), "dinov2"),
        "siglip": Companion("the SigLIP tower", "timm", SIGLIP, (timm_vit.POSITIONS,), "siglip"),
        "tokenizer": Companion("a tokenizer", published="qwen2.5-0.5b"),
    },
)
"""A native checkpoint holds only what was trained. The towers are frozen in the usual stages, so that they come from
timm (`dino`, `siglip`), which is where Prismatic takes them from."""
