"""OpenVLA-OFT and VLA-Adapter: a Prismatic VLM in transformers' form, and action head and proprio projector in files of
their own, with the names of their modules or the prefix `module.` of DistributedDataParallel.

Source: vla-scripts/finetune.py, save_training_checkpoint (moojink/openvla-oft @213c5ff, OpenHelix-Team/VLA-Adapter
@838a36d). LoRA is merged into the VLM; `lora_adapter/` beside it is not read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pokevla.data.published.images import ImagePath
from pokevla.data.published.normalisation import FILE as STATISTICS
from pokevla.data.published.normalisation import read_published_statistics
from pokevla.data.published.prompts import ADAPTER_PROMPT, OFT_PROMPT, PromptForm
from pokevla.embodiment.libero import LIBERO
from pokevla.embodiment.reading import KEY
from pokevla.errors import CheckpointError
from pokevla.files.records import as_type
from pokevla.files.texts import read_bytes, read_json_object
from pokevla.files.writing import atomic_file
from pokevla.model.presets import LanguageModelConfig, VisionTowerConfig, preset
from pokevla.model.published.config import (
    Normalisation,
    PublishedConfig,
    adapter_config,
    oft_config,
    published_towers,
)
from pokevla.model.published.vla import PublishedVLA
from pokevla.recipe.checking.recorded import TRAINED_ON, Recorded
from pokevla.weights.conversion.sources import SAFETENSORS, WeightFiles
from pokevla.weights.conversion.weight_format import (
    ImportRequest,
    Layout,
    OurModel,
    Row,
    Shape,
    WeightFormat,
)
from pokevla.weights.formats.qwen2 import language_model_of
from pokevla.weights.formats.tokenizers import TOKENIZER, TOKENIZER_FILES, copy_tokenizer
from pokevla.weights.formats.vla_names import BRIDGE_ROWS, HEAD, OFT_ROWS, PROPRIO, published_names

OFT, ADAPTER = "openvla-oft", "vla-adapter"
OTHERS = ("config.json", "preprocessor_config.json", STATISTICS)
"""Files beside the weights that an import keeps, in `OUT/published/` and for the policy."""
KEPT = "published"
PROTOCOL = Recorded(image_size=(256,), fast_rendering=(False,), instructions=("task",))
"""What the published models were trained on and are evaluated with: 256 px (IMAGE_RESOLUTION of
experiments/robot/libero/regenerate_libero_dataset.py, env_img_res of run_libero_eval.py), default rendering, and the
words of the tasks' names. moojink/openvla-oft @213c5ff; the same in OpenHelix-Team/VLA-Adapter @838a36d. The way from
these pictures to the model's pixels is `ImagePath`."""
QWEN2_DEFAULTS: dict[str, Any] = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "max_position_embeddings": 32768, "tie_word_embeddings": False,
}  # fmt: skip
"""Qwen2Config of transformers 4.40.1, whose `save_pretrained` leaves out what equals it (configuration_qwen2.py)."""


def _files() -> tuple[WeightFiles, ...]:
    def part(name: str) -> tuple[str, ...]:
        return (f"{name}--latest_checkpoint.pt", f"{name}--*checkpoint.pt")

    return (
        WeightFiles(SAFETENSORS),
        WeightFiles(part("action_head"), prefix=HEAD),
        WeightFiles(part("proprio_projector"), prefix=PROPRIO),
    )


def _layouts(head: tuple[Row, ...], others: tuple[Row, ...] = ()) -> dict[str, Layout]:
    """As saved from training on several GPUs, and from a plain module."""
    titles = {"ddp": ("module.", "as training saves it"), "plain": ("", "without the prefix module.")}
    return {
        name: Layout(
            title=title,
            files=_files(),
            names=published_names(prefix, head, others),
            write_others=_write_others,
            other_files=(*OTHERS, *TOKENIZER_FILES),
        )
        for name, (prefix, title) in titles.items()
    }


def _towers(request: ImportRequest) -> tuple[VisionTowerConfig, VisionTowerConfig]:
    if request.preset is None:
        return published_towers()
    vlm = preset(request.preset).vlm
    return vlm.dino, vlm.siglip


def _refuse_other_files(request: ImportRequest) -> None:
    """Refuse what lies beside the VLM and makes it another model.

    Raises:
        CheckpointError: several action heads or projectors; a diffusion head; a vision backbone with FiLM.
    """
    folder = request.source.folder
    for part in ("action_head", "proprio_projector"):
        found = sorted(path.name for path in folder.glob(f"{part}--*checkpoint.pt"))
        if len(found) > 1:
            raise CheckpointError(
                f"{folder} holds {len(found)} files of the {part}: {', '.join(found)}.",
                "Keep the one of the step of model.safetensors.",
            )
    for part, what in (("noisy_action_projector", "diffusion heads"), ("vision_backbone", "backbones with FiLM")):
        if found := sorted(path.name for path in folder.glob(f"{part}--*checkpoint.pt")):
            raise CheckpointError(f"{folder} holds {found[0]}: {what} are not supported.", "Use one with an L1 head.")


def _content(request: ImportRequest) -> dict[str, Any]:
    content = request.source.read_config()
    arch = content.get("arch_specifier", "")
    if not str(arch).endswith("fused-gelu-mlp"):
        raise CheckpointError(
            f"{request.source.folder / 'config.json'}: arch_specifier is {arch!r}.", "Two fused towers are supported."
        )
    return content


def _normalisation(request: ImportRequest) -> Normalisation:
    """The numbers of preprocessor_config.json, which transformers' processor uses.

    Raises:
        CheckpointError: they are missing.
    """
    path = request.source.folder / "preprocessor_config.json"
    content = read_json_object(path, kind=CheckpointError, remedy="Copy it beside the weights.")
    try:
        dino, siglip = content["tvf_normalize_params"]
        rows = [tuple(float(number) for number in one[name]) for one in (dino, siglip) for name in ("mean", "std")]
        if any(len(row) != 3 for row in rows):
            raise ValueError("a mean or std has not three numbers")
        return Normalisation(*rows)  # pyright: ignore[reportArgumentType]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: tvf_normalize_params are not those of two image encoders ({error}).", "Copy it again."
        ) from error


def _finished(request: ImportRequest, config: PublishedConfig, content: Mapping[str, Any]) -> PublishedConfig:
    return dataclasses.replace(
        config, normalisation=_normalisation(request), max_length=int(content.get("llm_max_length", config.max_length))
    )


@dataclasses.dataclass(frozen=True)
class _LlamaText:
    """The fields of a Llama `text_config` that change what the model computes, with transformers' values for those that
    are left out (configuration_llama.py of 4.40.1). OpenVLA's leaves out all but the vocabulary, even the epsilon."""

    model_type: str = "llama"
    vocab_size: int = 32000
    hidden_size: int = 4096
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    intermediate_size: int = 11008
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    max_position_embeddings: int = 2048
    rope_scaling: dict[str, Any] | None = None
    hidden_act: str = "silu"
    attention_bias: bool = False
    tie_word_embeddings: bool = False


def llama_of(text: Mapping[str, Any], place: object) -> LanguageModelConfig:
    """Sizes from a `text_config`.

    Raises:
        CheckpointError: it is not Llama's, or the model computes something else than ours.
    """
    if text.get("model_type", "llama") != "llama":
        raise CheckpointError(f"{place}: the language model is {text['model_type']!r}, not llama.")
    config = as_type(dict(text), _LlamaText, str(place), kind=CheckpointError)
    if config.rope_scaling or config.hidden_act != "silu" or config.attention_bias or config.tie_word_embeddings:
        raise CheckpointError(
            f"{place}: scaled rotary angles, other activations than silu, biases and a tied head are not supported."
        )
    return LanguageModelConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads or config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        rope_theta=config.rope_theta,
        rms_eps=config.rms_norm_eps,
        tie_embeddings=False,
        max_positions=config.max_position_embeddings,
        kind="llama",
    )


def _read_oft(request: ImportRequest) -> PublishedConfig:
    _refuse_other_files(request)
    content = _content(request)
    language_model = llama_of(content.get("text_config") or {}, request.source.folder / "config.json")
    return _finished(request, oft_config(*_towers(request), language_model), content)


def _read_adapter(request: ImportRequest) -> PublishedConfig:
    _refuse_other_files(request)
    content = _content(request)
    text = QWEN2_DEFAULTS | (content.get("text_config") or {})
    language_model = language_model_of(text, request.source.folder / "config.json")
    names = request.source.tensors
    pro = any(".k_self." in name for name in names)
    queries = names.get("action_queries.weight")
    if queries is None:
        raise CheckpointError(
            f"{request.source.folder} lacks action_queries.weight: it is not a merged VLA-Adapter.",
            "Take model.safetensors of a checkpoint with merged LoRA.",
        )
    config = adapter_config(*_towers(request), language_model, "pro" if pro else "original", queries.shape[0])
    return _finished(request, config, content)


def _shapes(config: PublishedConfig) -> dict[str, Shape]:
    with torch.device("meta"):
        state = PublishedVLA(config).state_dict()
    tied = "vlm.language_model.lm_head.weight" if config.vlm.language_model.tie_embeddings else ""
    return {name: tuple(tensor.shape) for name, tensor in state.items() if name != tied}


def _describer(kind: str, prompt: PromptForm) -> Callable[[ImportRequest, PublishedConfig, Path], dict[str, Any]]:
    def describe(request: ImportRequest, config: PublishedConfig, folder: Path) -> dict[str, Any]:
        source = request.source.folder
        copy_tokenizer(source, folder / TOKENIZER)
        if not (folder / TOKENIZER / "tokenizer.json").is_file():
            raise CheckpointError(f"{source} lacks tokenizer.json.", "Copy it beside the weights.")
        read_published_statistics(source / STATISTICS, LIBERO)
        (folder / KEPT).mkdir()
        for name in OTHERS:
            _copy(source / name, folder / KEPT / name)
        _copy(source / STATISTICS, folder / STATISTICS)
        return {
            "kind": kind,
            "model": config.to_dict(),
            "prompt": dataclasses.asdict(prompt),
            "images": dataclasses.asdict(ImagePath()),
            TRAINED_ON: PROTOCOL.to_dict(),
            KEY: LIBERO.to_dict(),
        }

    return describe


def _copy(source: Path, target: Path) -> None:
    content = read_bytes(source, kind=CheckpointError, remedy="Copy it beside the weights.")
    with atomic_file(target, kind=CheckpointError) as file:
        file.write(content)


def _write_others(folder: Path, model: OurModel) -> None:
    """The files that the import kept, unchanged."""
    for name in OTHERS:
        _copy(model.folder / KEPT / name, folder / name)
    copy_tokenizer(model.folder / TOKENIZER, folder)


OPENVLA_OFT = WeightFormat(
    title="OpenVLA-OFT",
    kind=OFT,
    layouts=_layouts(OFT_ROWS),
    read_config=_read_oft,
    shapes=_shapes,
    describe=_describer(OFT, OFT_PROMPT),
    parse_config=PublishedConfig.from_dict,
)
VLA_ADAPTER = WeightFormat(
    title="VLA-Adapter",
    kind=ADAPTER,
    layouts=_layouts(BRIDGE_ROWS, (Row("action_queries.weight", "action_queries"),)),
    read_config=_read_adapter,
    shapes=_shapes,
    describe=_describer(ADAPTER, ADAPTER_PROMPT),
    parse_config=PublishedConfig.from_dict,
)
