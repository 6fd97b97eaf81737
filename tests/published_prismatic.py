"""Small random Prismatic VLMs in the published layouts, made with timm and transformers alone, and what they compute.

Sizes are those of the preset `tiny`. The forward follows github.com/TRI-ML/prismatic-vlms
(prismatic/models/vlms/prismatic.py, models/backbones/vision/dinosiglip_vit.py, util/nn_utils.py).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM

from pokevla.model.tokenizers.loading import MINI_TOKENIZER

IMAGE_SIZE = 28
DINO_FILE_SIZE = 42
"""px for which the published DINOv2 file has position embeddings: another grid, as with 518 and 224 px at full size."""
IDS = {
    "vision_backbone_id": "dinosiglip-vit-so-224px", "llm_backbone_id": "qwen25-0_5b-extra",
    "arch_specifier": "no-align+fused-gelu-mlp", "image_resize_strategy": "resize-naive",
}  # fmt: skip


def tower(name: str, image_size: int, width: int, **options: float) -> nn.Module:
    return timm.create_model(
        name, pretrained=False, num_classes=0, img_size=image_size, embed_dim=width, depth=2, num_heads=2,
        mlp_ratio=2.0, **options,
    ).eval()  # fmt: skip


@dataclass
class PublishedPrismatic:
    """The parts of a VLM as others build them."""

    dino: nn.Module
    siglip: nn.Module
    projector: nn.Sequential
    language_model: Qwen2ForCausalLM

    @torch.no_grad()
    def logits(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """pixels (B, 3, S, S) in [0, 1], ids (B, T) -> (B, P + T, vocab)."""
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        dino = self._penultimate(self.dino, (pixels - mean) / std)
        siglip = self._penultimate(self.siglip, (pixels - 0.5) / 0.5)
        vision = self.projector(torch.cat([dino, siglip], dim=2))
        words = self.language_model.get_input_embeddings()(ids)
        embeddings = torch.cat([words[:, :1], vision, words[:, 1:]], dim=1)
        return self.language_model(inputs_embeds=embeddings).logits

    @staticmethod
    def _penultimate(vit: nn.Module, images: Tensor) -> Tensor:
        (features,) = vit.get_intermediate_layers(images, n={len(vit.blocks) - 2})  # pyright: ignore
        return features


def random_prismatic(seed: int = 0) -> PublishedPrismatic:
    """One with random weights, large enough that every part matters."""
    torch.manual_seed(seed)
    model = PublishedPrismatic(
        tower("vit_large_patch14_reg4_dinov2", IMAGE_SIZE, 16, reg_tokens=4, init_values=1.0),
        tower("vit_so400m_patch14_siglip_224", IMAGE_SIZE, 24),
        nn.Sequential(nn.Linear(40, 160), nn.GELU(), nn.Linear(160, 32), nn.GELU(), nn.Linear(32, 32)),
        Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=2048, rms_norm_eps=1e-6, tie_word_embeddings=True,
                rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            )
        ).eval(),
    )  # fmt: skip
    with torch.no_grad():
        for part in (model.dino, model.siglip, model.projector, model.language_model):
            for parameter in part.parameters():
                parameter.copy_(parameter + 0.2 * torch.randn_like(parameter))
    return model


def write_native(model: PublishedPrismatic, folder: Path, *, with_vision: bool = False) -> Path:
    """The folder that Prismatic's training leaves: {"model": {"projector": ..., "llm_backbone": ...}}."""
    projector = {f"projector.{name}": value for name, value in model.projector.state_dict().items()}
    language = {f"llm.{name}": value for name, value in model.language_model.state_dict().items()}
    content = {"projector": projector, "llm_backbone": language}
    if with_vision:
        towers = (("dino_featurizer", model.dino), ("siglip_featurizer", model.siglip))
        content["vision_backbone"] = {f"{n}.{k}": v for n, part in towers for k, v in part.state_dict().items()}
    (folder / "checkpoints").mkdir(parents=True)
    torch.save({"model": content}, folder / "checkpoints/latest-checkpoint.pt")
    (folder / "config.json").write_text(json.dumps({"model": {"model_id": "toy", **IDS}}))
    return folder


def write_hf(model: PublishedPrismatic, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The Hugging Face form: one file, LayerScale as scale_factor, a tied word head left out, tokenizer beside it."""
    state = {f"vision_backbone.featurizer.{name}": value for name, value in model.dino.state_dict().items()}
    state = {name.replace(".gamma", ".scale_factor"): value for name, value in state.items()}
    state |= {f"vision_backbone.fused_featurizer.{name}": value for name, value in model.siglip.state_dict().items()}
    for layer, name in ((0, "fc1"), (2, "fc2"), (4, "fc3")):
        state |= {f"projector.{name}.{k}": v for k, v in model.projector[layer].state_dict().items()}
    state |= {f"language_model.{name}": value for name, value in model.language_model.state_dict().items()}
    del state["language_model.lm_head.weight"]
    folder.mkdir()
    save_file({name: value.to(dtype).contiguous() for name, value in state.items()}, folder / "model.safetensors")
    text = model.language_model.config.to_dict()
    config = {
        "model_type": "openvla",
        **IDS,
        "timm_model_ids": ["a", "b"],
        "image_sizes": [28, 28],
        "text_config": text,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer_config.json", "vocab.json", "merges.txt"):
        shutil.copy(MINI_TOKENIZER / name, folder)
    return folder


def write_towers(model: PublishedPrismatic, folder: Path) -> dict[str, Path]:
    """Both towers as timm publishes them; DINOv2's for another image size. The model gets what timm makes of it."""
    published = tower("vit_large_patch14_reg4_dinov2", DINO_FILE_SIZE, 16, reg_tokens=4, init_values=1.0)
    state = model.dino.state_dict() | {"pos_embed": torch.randn_like(published.pos_embed)}
    published.load_state_dict(state)
    model.dino.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(state, model.dino))  # pyright: ignore
    for name, part in (("dino", published), ("siglip", model.siglip)):
        (folder / name).mkdir(parents=True)
        save_file(
            {key: value.contiguous() for key, value in part.state_dict().items()}, folder / name / "model.safetensors"
        )
    return {"dino": folder / "dino", "siglip": folder / "siglip"}
