"""Small random checkpoints in the published layouts of OpenVLA-OFT and VLA-Adapter, and their mathematics plainly.

The modules have the published names, so that their state dicts are the published files; their forward passes are loops
over the formulas, independent of `pokevla.model`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE, PATCH, DINO, SIGLIP, HIDDEN, LAYERS, HEADS, FFN = 28, 14, 16, 24, 32, 2, 4, 64
VOCAB = {"openvla-oft": 30000, "vla-adapter": 1024}
KV_HEADS = {"openvla-oft": 4, "vla-adapter": 2}
THETA = {"openvla-oft": 1e4, "vla-adapter": 1e6}
BF16_MEAN, BF16_STD = (0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)
HALVES = (0.5, 0.5, 0.5)
DDP = "module."
STATISTICS = {
    "libero_spatial_no_noops": {
        "action": {
            "q01": [-0.745, -0.662, -0.9375, -0.107, -0.207, -0.184, 0.0],
            "q99": [0.9375, 0.876, 0.932, 0.104, 0.177, 0.146, 1.0],
            "mask": [True] * 6 + [False],
        },
        "proprio": {
            "q01": [-0.45, -0.3, 0.0, 2.3, -3.1, -0.2, 0.001, -0.041],
            "q99": [0.2, 0.4, 1.2, 3.4, 2.9, 0.5, 0.041, 0.0],
        },
        "num_transitions": 52970,
        "num_trajectories": 432,
    }
}


class PlainVision(nn.Module):
    """Both towers with transformers' names; features of the penultimate block (here block 0 of 2)."""

    def __init__(self) -> None:
        super().__init__()
        common = {"num_classes": 0, "img_size": IMAGE, "patch_size": PATCH, "depth": 2, "num_heads": 2, "mlp_ratio": 2}
        dino = {"embed_dim": DINO, "reg_tokens": 4, "init_values": 1.0}
        self.featurizer = timm.create_model("vit_large_patch14_reg4_dinov2.lvd142m", **common, **dino)
        self.fused_featurizer = timm.create_model("vit_so400m_patch14_siglip_224", **common, embed_dim=SIGLIP)

    def published(self) -> dict[str, Tensor]:
        """State dict with `scale_factor`, as transformers forbade `gamma`."""
        return {name.replace(".gamma", ".scale_factor"): value for name, value in self.state_dict().items()}

    def forward(self, image: Tensor) -> Tensor:
        """(3, S, S) in [0, 1] -> (P, 40)."""
        both = []
        for tower, mean, std in ((self.featurizer, BF16_MEAN, BF16_STD), (self.fused_featurizer, HALVES, HALVES)):
            pixels = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
            tokens = tower.patch_embed(pixels[None].to(tower.pos_embed.dtype))
            tokens = tower._pos_embed(tokens)
            tokens = tower.blocks[0](tower.norm_pre(tokens))
            both.append(tokens[0, tower.num_prefix_tokens :])
        return torch.cat(both, dim=-1)


class PlainLanguage(nn.Module):
    """Llama (no biases) or Qwen2 (biases of q, k, v) with the names of transformers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        depth, bias, keys = HIDDEN // HEADS, kind == "vla-adapter", KV_HEADS[kind]

        def layer() -> nn.ModuleDict:
            attention = nn.ModuleDict({
                "q_proj": nn.Linear(HIDDEN, HIDDEN, bias=bias),
                "k_proj": nn.Linear(HIDDEN, keys * depth, bias=bias),
                "v_proj": nn.Linear(HIDDEN, keys * depth, bias=bias),
                "o_proj": nn.Linear(HIDDEN, HIDDEN, bias=False),
            })  # fmt: skip
            mlp = nn.ModuleDict({
                "gate_proj": nn.Linear(HIDDEN, FFN, bias=False),
                "up_proj": nn.Linear(HIDDEN, FFN, bias=False),
                "down_proj": nn.Linear(FFN, HIDDEN, bias=False),
            })  # fmt: skip
            norms = {"input_layernorm": _Scale(HIDDEN), "post_attention_layernorm": _Scale(HIDDEN)}
            return nn.ModuleDict({"self_attn": attention, "mlp": mlp, **norms})

        self.model = nn.ModuleDict({
            "embed_tokens": nn.Embedding(VOCAB[kind], HIDDEN),
            "layers": nn.ModuleList([layer() for _ in range(LAYERS)]),
            "norm": _Scale(HIDDEN),
        })  # fmt: skip
        if kind == "openvla-oft":
            self.lm_head = nn.Linear(HIDDEN, VOCAB[kind], bias=False)

    def forward(self, states: Tensor, *, causal: bool, eps: float = 1e-6) -> list[Tensor]:
        """(L, D) -> the states after each layer, the last one normalised."""
        found = []
        for layer in self.model["layers"]:
            attention, mlp = layer["self_attn"], layer["mlp"]
            normed = _rms(states, layer["input_layernorm"].weight, eps)
            states = states + attention["o_proj"](self._attend(attention, normed, causal))
            normed = _rms(states, layer["post_attention_layernorm"].weight, eps)
            states = states + mlp["down_proj"](F.silu(mlp["gate_proj"](normed)) * mlp["up_proj"](normed))
            found.append(states)
        return [*found[:-1], _rms(states, self.model["norm"].weight, eps)]

    def _attend(self, layer: nn.ModuleDict, states: Tensor, causal: bool) -> Tensor:
        length, depth, group = len(states), HIDDEN // HEADS, HEADS // KV_HEADS[self.kind]
        query, key, value = (layer[name](states).view(length, -1, depth) for name in ("q_proj", "k_proj", "v_proj"))
        turns = torch.arange(length)[:, None] / THETA[self.kind] ** (torch.arange(0, depth, 2) / depth)
        query, key = _halves_turned(query, turns), _halves_turned(key, turns)
        heads = []
        for head in range(HEADS):
            scores = query[:, head] @ key[:, head // group].T / math.sqrt(depth)
            if causal:
                scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
            heads.append(scores.softmax(-1) @ value[:, head // group])
        return torch.cat(heads, dim=-1)


class _Scale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))


def _rms(states: Tensor, scale: Tensor, eps: float) -> Tensor:
    return scale * states / (states.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def _halves_turned(states: Tensor, turns: Tensor) -> Tensor:
    """Rotate (L, H, d) in pairs (i, i + d/2)."""
    low, high = states.chunk(2, dim=-1)
    cosine, sine = turns.cos()[:, None], turns.sin()[:, None]
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1)


def _mlp(width_in: int, width: int, count: int, block: Any) -> nn.Module:
    """The published names of both heads."""
    net = nn.Module()
    net.layer_norm1, net.fc1 = nn.LayerNorm(width_in), nn.Linear(width_in, width)
    net.mlp_resnet_blocks = nn.ModuleList([block() for _ in range(count)])
    net.layer_norm2, net.fc2 = nn.LayerNorm(width), nn.Linear(width, 7)
    return net


class PlainHead(nn.Module):
    """Action head of either project. `variant`: oft, original or pro."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant
        self.rounding = True
        self.model = _mlp(7 * HIDDEN, HIDDEN, LAYERS, self._block)

    def _block(self) -> nn.Module:
        block = nn.Module()
        block.ffn = nn.Sequential(nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
        names = {
            "oft": (),
            "original": ("q_proj", "k_proj", "v_proj", "o_proj"),
            "pro": ("q_proj", "k_self", "v_self", "k_adapter", "v_adapter", "k_task", "v_task", "o_proj"),
        }
        for name in names[self.variant]:
            setattr(block, name, nn.Linear(HIDDEN, HIDDEN))
        if self.variant != "oft":
            block.gating_factor = nn.Parameter(torch.zeros(1))
        if self.variant == "pro":
            block.film_gen = nn.Sequential(nn.Linear(HIDDEN, 2 * HIDDEN))
        return block

    def forward(self, queries: list[Tensor], vision: list[Tensor], proprio: Tensor) -> Tensor:
        """States by layer, queries (Q, D) and vision (N, D), and projected proprio (1, D) -> (8, 7)."""
        net = self.model
        start = queries[-1].reshape(8, -1) if self.variant == "oft" else proprio.new_zeros(8, 7 * HIDDEN)
        states = F.relu(net.fc1(net.layer_norm1(start)))
        for number, block in enumerate(net.mlp_resnet_blocks):
            if self.variant == "oft":
                states = states + block.ffn(states)
            else:
                states = block.ffn(states + self._bridge(block, states, queries[number], vision[number], proprio))
        return net.fc2(net.layer_norm2(states))

    def _bridge(self, block: Any, states: Tensor, queries: Tensor, vision: Tensor, proprio: Tensor) -> Tensor:
        adapter = torch.cat([queries, proprio])
        adapter = adapter.bfloat16().to(adapter.dtype) if self.rounding else adapter
        pro = self.variant == "pro"
        layers = (
            [(block.k_self, block.v_self), (block.k_adapter, block.v_adapter), (block.k_task, block.v_task)]
            if pro
            else [(block.k_proj, block.v_proj)] * 3
        )
        query = block.q_proj(states).view(len(states), 8, -1)
        query = _adjacent_turned(query) if pro else query
        keys, values = [], []
        for (to_key, to_value), source in zip(layers, (states, adapter, vision), strict=True):
            key = to_key(source).view(len(source), 8, -1)
            keys.append(_adjacent_turned(key) if pro else key)
            values.append(to_value(source).view(len(source), 8, -1))
        keys[2] = keys[2] * block.gating_factor.tanh()
        key, value = torch.cat(keys), torch.cat(values)
        heads = [
            (query[:, head] @ key[:, head].T / math.sqrt(query.shape[-1])).softmax(-1) @ value[:, head]
            for head in range(8)
        ]
        return block.o_proj(torch.cat(heads, dim=-1))


def _adjacent_turned(states: Tensor) -> Tensor:
    """Pro's rotation of (S, H, d): adjacent channels are paired, the angle of channel c is that of c modulo d/2."""
    length, _, depth = states.shape
    channel = torch.arange(depth) % (depth // 2)
    turns = (torch.arange(length)[:, None] / 10000.0 ** (2 * channel / depth))[:, None]
    partner = torch.empty_like(states)
    partner[..., ::2], partner[..., 1::2] = -states[..., 1::2], states[..., ::2]
    return states * turns.cos() + partner * turns.sin()


class PlainVLA(nn.Module):
    """A whole model: `kind` as in `pokevla model import`, `pro` for the Pro head of VLA-Adapter."""

    def __init__(self, kind: str, *, pro: bool = False, seed: int = 0) -> None:
        super().__init__()
        self.kind = kind
        torch.manual_seed(seed)
        self.vision, self.language = PlainVision(), PlainLanguage(kind)
        self.projector = nn.ModuleDict({
            "fc1": nn.Linear(DINO + SIGLIP, 4 * (DINO + SIGLIP)),
            "fc2": nn.Linear(4 * (DINO + SIGLIP), HIDDEN),
            "fc3": nn.Linear(HIDDEN, HIDDEN),
        })  # fmt: skip
        self.proprio = nn.ModuleDict({"fc1": nn.Linear(8, HIDDEN), "fc2": nn.Linear(HIDDEN, HIDDEN)})
        self.head = PlainHead("oft" if kind == "openvla-oft" else "pro" if pro else "original")
        if kind == "vla-adapter":
            self.queries = nn.Parameter(torch.zeros(64, HIDDEN))
        self._randomise()

    @torch.no_grad()
    def _randomise(self) -> None:
        """Weights large enough that every part matters."""
        for name, value in self.named_parameters():
            if "norm" in name and name.endswith("weight"):
                value.uniform_(0.7, 1.3)
            elif "gating" in name:
                value.fill_(0.7)
            elif "embed_tokens" in name or name == "queries":
                value.normal_(std=0.5)
            elif value.ndim > 1:
                value.normal_(std=1.1 * value[0].numel() ** -0.5)
            else:
                value.add_(torch.randn_like(value) * 0.2)

    @torch.no_grad()
    def forward(self, images: Tensor, ids: list[int], proprio: Tensor) -> Tensor:
        """(2, 3, S, S) in [0, 1], token ids, normalised state (8,) -> normalised actions (8, 7)."""
        oft = self.kind == "openvla-oft"
        patches = torch.cat([self._projected(self.vision(image)) for image in images])
        embed = self.language.model["embed_tokens"]
        state = proprio if oft or not self.head.rounding else proprio.bfloat16()
        state = self.proprio["fc2"](F.gelu(self.proprio["fc1"](state.to(embed.weight.dtype))))[None]
        text = embed(torch.tensor(ids))
        actions = embed.weight.new_zeros(56, HIDDEN) if oft else self.queries
        before = [text[:1], patches, *([state] if oft else []), text[1:]]
        sequence = torch.cat([*before, actions, embed(torch.tensor([2]))])
        first = sum(len(part) for part in before)
        layers = self.language(sequence, causal=not oft)
        count = len(actions)
        queries = [states[first - 1 : first - 1 + count] for states in layers]  # one position early
        vision = [states[: len(patches)] for states in layers]  # from token 0 on
        return self.head(queries, vision, state)

    def _projected(self, features: Tensor) -> Tensor:
        fc1, fc2, fc3 = (self.projector[name] for name in ("fc1", "fc2", "fc3"))
        return fc3(F.gelu(fc2(F.gelu(fc1(features)))))

    def published(self) -> dict[str, Tensor]:
        """Tensors of the VLM's safetensors."""
        parts = {"vision_backbone": self.vision.published(), "projector": self.projector.state_dict()}
        parts["language_model"] = self.language.state_dict()
        tensors = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
        if self.kind == "vla-adapter":
            tensors["action_queries.weight"] = self.queries.data
        return tensors


def write_published(folder: Path, model: PlainVLA, *, prefix: str = DDP, shards: int = 1) -> Path:
    """Write a checkpoint as its project publishes it. Returns the folder."""
    folder.mkdir(parents=True)
    _write_vlm(folder, {name: value.contiguous() for name, value in model.published().items()}, shards)
    step = "150000_checkpoint" if model.kind == "openvla-oft" else "checkpoint"
    for name, part in (("action_head", model.head), ("proprio_projector", model.proprio)):
        torch.save({prefix + key: value for key, value in part.state_dict().items()}, folder / f"{name}--{step}.pt")
    (folder / "dataset_statistics.json").write_text(json.dumps(STATISTICS))
    (folder / "config.json").write_text(json.dumps(_config(model.kind)))
    norms = [{"mean": BF16_MEAN, "std": BF16_STD}, {"mean": HALVES, "std": HALVES}]
    (folder / "preprocessor_config.json").write_text(json.dumps({"tvf_normalize_params": norms}))
    tokenizer_of(model.kind).save(str(folder / "tokenizer.json"))
    return folder


def _write_vlm(folder: Path, tensors: dict[str, Tensor], shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return
    files = [f"model-{k + 1:05d}-of-{shards:05d}.safetensors" for k in range(shards)]
    places = {name: files[number * shards // len(tensors)] for number, name in enumerate(tensors)}
    for file in files:
        save_file({name: tensors[name] for name in tensors if places[name] == file}, folder / file, {"format": "pt"})
    content = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def _config(kind: str) -> dict[str, Any]:
    text: dict[str, Any] = {
        "vocab_size": VOCAB[kind], "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "intermediate_size": FFN,
    }  # fmt: skip
    if kind == "openvla-oft":
        text |= {"model_type": "llama", "pad_token_id": 32000}
    else:
        text |= {
            "model_type": "qwen2", "num_key_value_heads": KV_HEADS[kind], "rope_theta": THETA[kind],
            "tie_word_embeddings": True, "max_position_embeddings": 2048,  # the epsilon is transformers' default
        }  # fmt: skip
    return {
        "model_type": "openvla", "arch_specifier": "no-align+fused-gelu-mlp", "llm_max_length": 2048,
        "text_config": text,
    }  # fmt: skip


def tokenizer_of(kind: str) -> Tokenizer:
    """Bytes as tokens, below the size of the vocabulary; specials as in the real ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number + 3 for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "vla-adapter":
        names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
        tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names])
    return tokenizer


def random_observation(seed: int = 0, count: int = 1, size: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 2, H, W, 3) uint8 and raw proprio (N, 8)."""
    rng = np.random.default_rng(seed)
    low, high = (np.array(STATISTICS["libero_spatial_no_noops"]["proprio"][name]) for name in ("q01", "q99"))
    return rng.integers(0, 256, (count, 2, size, size, 3), np.uint8), rng.uniform(low, high, (count, 8))
