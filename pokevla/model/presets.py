"""Sizes of the model: configuration dataclasses, the presets tiny, mini and pocket, and their JSON form.

A preset consists of numbers only: all three use the same classes and the same code path. The views and the widths of
proprio and actions come from the embodiment, not from the preset.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args, get_type_hints

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import UsageError
from pokevla.model.heads.settings import BridgeSettings

Attention = Literal["causal", "bidirectional"]
LinearInit = Literal["library", "fan_in"]
PositionInit = Literal["timm", "sincos"]
Condition = Literal["last", "per_layer"]


@dataclass(frozen=True)
class VisionTowerConfig:
    """One image encoder. `depth` counts all blocks. Features come from block depth-2 (Prismatic); the last is idle."""

    timm_name: str
    image_size: int  # px, square
    patch_size: int  # px
    width: int
    depth: int
    num_heads: int
    mlp_ratio: float
    num_registers: int
    layer_scale: float | None  # init of LayerScale; None builds none. With 1e-5, from-scratch training barely starts
    position_init: PositionInit = "timm"  # timm: N(0, 0.02); sincos: 2-D Fourier code of amplitude 1, then learned
    kind: str = "timm_vit"  # entry of pokevla.parts.VISION_TOWERS

    @property
    def grid(self) -> int:
        """Number of patches along one side."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class LanguageModelConfig:
    """A causal decoder with rotary positions and grouped keys and values."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    rope_theta: float = 1e6
    rms_eps: float = 1e-6
    tie_embeddings: bool = True
    max_positions: int = 32768
    kind: str = "qwen2"  # entry of pokevla.parts.LANGUAGE_MODELS


@dataclass(frozen=True)
class SegmentationConfig:
    """SAM's prompt encoder and mask decoder, one coarse and one fine. Masks have a side of `4 * grid` px."""

    embed_dim: int
    grid: int  # side of SAM's image embedding
    decoder_depth: int = 2
    num_heads: int = 8
    mlp_dim: int = 2048
    mask_input_channels: int = 16
    num_multimask_outputs: int = 3  # SAM's ambiguity masks: their tokens are kept, only mask 0 is used

    @property
    def mask_size(self) -> int:
        """Side of the mask logits in px."""
        return 4 * self.grid


@dataclass(frozen=True)
class GeometryConfig:
    """Projector to the geometry teacher. `grid` is the side of the teacher's grid after its own pooling."""

    target_dim: int
    grid: int
    layer: int | None = None  # the language model's layer (from 1) whose vision states are aligned; None: the last


@dataclass(frozen=True)
class ActionHeadConfig:
    """The action head; by default the paper's, with four attentions per layer."""

    num_layers: int
    width: int
    num_heads: int
    num_queries: int
    action_dim: int
    proprio_dim: int
    chunk_length: int = 8
    condition: Condition = "last"  # last: every head layer reads the last LM layer; per_layer: its own
    seg_injection: bool = True
    gate: bool = False
    kind: str = "poke"  # entry of pokevla.parts.ACTION_HEADS
    bridge: BridgeSettings = dataclasses.field(default_factory=BridgeSettings)  # of the head bridge only
    zero_queries: bool = False  # the queries are zeros and stay so: only their positions differ (OpenVLA-OFT)
    proprio_in_sequence: bool = False  # proprio is a token before the text (OpenVLA-OFT), besides what the head reads


@dataclass(frozen=True)
class PokeVLMConfig:
    """Prismatic VLM: two vision towers, projector, Qwen2."""

    image_size: int
    dino: VisionTowerConfig
    siglip: VisionTowerConfig
    language_model: LanguageModelConfig
    attention: Attention = "causal"
    linear_init: LinearInit = "library"  # fan_in: N(0, 1 / fan in) in the VLM and in what PokeVLA adds

    @property
    def num_patches(self) -> int:
        """Number of vision tokens per view."""
        return self.dino.grid**2


@dataclass(frozen=True)
class PokeVLAConfig:
    """PokeVLM and everything that post-training adds."""

    vlm: PokeVLMConfig
    segmentation: SegmentationConfig
    geometry: GeometryConfig
    action_head: ActionHeadConfig
    num_views: int
    seg_token: bool = True  # False: no <SEG> in the sequence, so no masks


DINO_TIMM_NAME = "vit_large_patch14_reg4_dinov2.lvd142m"
SIGLIP_TIMM_NAME = "vit_so400m_patch14_siglip_224"


def _tower(
    name: str,
    image_size: int,
    width: int,
    depth: int,
    heads: int,
    layer_scale: float | None,
    mlp_ratio: float = 4.0,
    position_init: PositionInit = "timm",
) -> VisionTowerConfig:
    registers = 4 if name == DINO_TIMM_NAME else 0
    return VisionTowerConfig(
        name, image_size, 14, width, depth, heads, mlp_ratio, registers, layer_scale, position_init
    )


def _head(embodiment: Embodiment, num_layers: int, width: int, num_heads: int, num_queries: int) -> ActionHeadConfig:
    return ActionHeadConfig(
        num_layers, width, num_heads, num_queries, embodiment.action_width, embodiment.proprio_width
    )


def _tiny(embodiment: Embodiment) -> PokeVLAConfig:
    """For tests: minimal sizes, milliseconds per step."""
    return PokeVLAConfig(
        vlm=PokeVLMConfig(
            image_size=28,
            dino=_tower(DINO_TIMM_NAME, 28, 16, 2, 2, 1.0, mlp_ratio=2.0),
            siglip=_tower(SIGLIP_TIMM_NAME, 28, 24, 2, 2, None, mlp_ratio=2.0),
            language_model=LanguageModelConfig(1024, 32, 2, 4, 2, 64, max_positions=2048),
        ),
        segmentation=SegmentationConfig(embed_dim=16, grid=4, num_heads=2, mlp_dim=32),
        geometry=GeometryConfig(target_dim=24, grid=2),
        action_head=_head(embodiment, num_layers=2, width=32, num_heads=4, num_queries=4),
        num_views=embodiment.num_views,
    )


def _mini(embodiment: Embodiment) -> PokeVLAConfig:
    """For the demo, which trains it from scratch on two CPU cores (ours)."""
    return PokeVLAConfig(
        vlm=PokeVLMConfig(
            image_size=112,
            dino=_tower(DINO_TIMM_NAME, 112, 96, 4, 3, 1.0, mlp_ratio=3.0, position_init="sincos"),
            siglip=_tower(SIGLIP_TIMM_NAME, 112, 64, 4, 2, None, position_init="sincos"),
            language_model=LanguageModelConfig(1024, 128, 3, 4, 2, 256, max_positions=2048),
            linear_init="fan_in",
        ),
        segmentation=SegmentationConfig(embed_dim=32, grid=16, num_heads=2, mlp_dim=64),
        geometry=GeometryConfig(target_dim=64, grid=8),
        action_head=_head(embodiment, num_layers=3, width=128, num_heads=4, num_queries=8),
        num_views=embodiment.num_views,
    )


def _pocket(embodiment: Embodiment) -> PokeVLAConfig:
    """The paper's model (arXiv 2604.20834 sec. IV-B, V). It does not specify depth and width of the head; 24 x 896 is
    our choice."""
    return PokeVLAConfig(
        vlm=PokeVLMConfig(
            image_size=224,
            dino=_tower(DINO_TIMM_NAME, 224, 1024, 24, 16, 1e-5),
            siglip=_tower(SIGLIP_TIMM_NAME, 224, 1152, 27, 16, None, mlp_ratio=3.7362),
            language_model=LanguageModelConfig(151936, 896, 24, 14, 2, 4864),
        ),
        segmentation=SegmentationConfig(embed_dim=256, grid=64),
        geometry=GeometryConfig(target_dim=2048, grid=16),
        action_head=_head(embodiment, num_layers=24, width=896, num_heads=8, num_queries=64),
        num_views=embodiment.num_views,
    )


_PRESETS = {"tiny": _tiny, "mini": _mini, "pocket": _pocket}
PRESET_NAMES = tuple(_PRESETS)


def preset(name: str, embodiment: Embodiment = LIBERO) -> PokeVLAConfig:
    """Return the configuration `name` (tiny, mini or pocket) for a robot's views, proprio and actions.

    Raises:
        UsageError: there is no such preset.
    """
    if name not in _PRESETS:
        nearest = difflib.get_close_matches(name, PRESET_NAMES, n=1)
        hint = f"Did you mean {nearest[0]}?" if nearest else f"Choose one of {', '.join(PRESET_NAMES)}."
        raise UsageError(f"{name!r} is not a model preset.", hint)
    return _PRESETS[name](embodiment)


def to_dict(config: PokeVLAConfig | PokeVLMConfig) -> dict[str, Any]:
    """Return `config` as nested plain dictionaries that JSON can store."""
    return dataclasses.asdict(config)


ConfigT = TypeVar("ConfigT")


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def config_of(cls: type[ConfigT], values: Any, place: str = "config") -> ConfigT:
    """Rebuild a configuration class of this module from its `dataclasses.asdict`; `place` names it in errors.

    Raises:
        UsageError: fields are unknown or missing.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{place} must be a mapping, not {type(values).__name__}.")
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls))}
    for key in values:
        if key not in fields:
            nearest = difflib.get_close_matches(str(key), list(fields), n=1)
            hint = f"Did you mean {nearest[0]}?" if nearest else f"Its fields are {', '.join(fields)}."
            raise UsageError(f"{place}.{key} is not a field of {cls.__name__}.", hint)
    missing = [name for name, field in fields.items() if name not in values and _is_required(field)]
    if missing:
        raise UsageError(f"{place} lacks {', '.join(missing)}.", "Take the config.json of a complete export.")
    hints = get_type_hints(cls)
    return cls(**{name: _value(hints[name], value, f"{place}.{name}") for name, value in values.items()})


def _value(hint: Any, value: Any, place: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return config_of(cast(type, hint), value, place)
    literals = get_args(hint) if getattr(hint, "__origin__", None) is Literal else ()
    if literals and value not in literals:
        raise UsageError(f"{place} is {value!r}.", f"Choose one of {', '.join(map(str, literals))}.")
    return tuple(value) if isinstance(value, list) else value  # JSON has no tuples


def config_from_dict(values: dict[str, Any]) -> PokeVLAConfig:
    """Rebuild a `PokeVLAConfig` from `to_dict`'s output; unknown or missing fields raise UsageError."""
    return config_of(PokeVLAConfig, values, "config")


def vlm_config_from_dict(values: dict[str, Any]) -> PokeVLMConfig:
    """Rebuild a `PokeVLMConfig` from `to_dict`'s output; unknown or missing fields raise UsageError."""
    return config_of(PokeVLMConfig, values, "config")


def check_config(config: PokeVLMConfig) -> None:
    """Check that the sizes are consistent.

    Raises:
        UsageError: names the fields in conflict.
    """
    for name, tower in (("dino", config.dino), ("siglip", config.siglip)):
        if tower.image_size != config.image_size:
            raise UsageError(
                f"{name}.image_size is {tower.image_size}, image_size is {config.image_size}.", "Make them equal."
            )
        if tower.image_size % tower.patch_size or tower.width % tower.num_heads or tower.depth < 2:
            raise UsageError(
                f"{name}: image_size must divide by patch_size, width by num_heads, and depth be at least 2.",
                "Change one of the five.",
            )
    if config.dino.grid != config.siglip.grid:
        raise UsageError(
            f"dino has a {config.dino.grid}x{config.dino.grid} patch grid, siglip {config.siglip.grid}x"
            f"{config.siglip.grid}: their features are joined patch by patch.",
            "Give both the same image_size and patch_size.",
        )
    language = config.language_model
    if language.hidden_size % language.num_heads or language.num_heads % language.num_kv_heads:
        raise UsageError(
            "language_model: hidden_size must divide by num_heads, and num_heads by num_kv_heads.",
            "Change one of the three.",
        )
