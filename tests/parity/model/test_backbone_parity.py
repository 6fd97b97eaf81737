"""Our spliced language model and our vision features equal the plain libraries', built by hand."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from pokevla.model.building import build_vla
from pokevla.model.presets import preset
from pokevla.model.vision_encoders.towers import build_tower, penultimate_patches
from pokevla.model.vla import PokeVLA

LENGTHS = (3, 6)


def rows_by_hand(model: PokeVLA, vision: Tensor, ids: Tensor) -> list[Tensor]:
    """[first token][wrist patches][base patches][rest of the text][SEG][queries] of each row, unpadded."""
    words = model.vlm.language_model.get_input_embeddings()(ids)
    tail = torch.cat([model.seg_token[None], model.action_queries])
    return [torch.cat([words[row, :1], vision[row], words[row, 1:length], tail]) for row, length in enumerate(LENGTHS)]


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_spliced_forward_equals_transformers_on_embeddings_built_by_hand(attention: str) -> None:
    config = preset("tiny")
    config = dataclasses.replace(config, vlm=dataclasses.replace(config.vlm, attention=attention))  # pyright: ignore
    model = build_vla(config).eval()
    torch.manual_seed(0)
    pixels, ids = torch.rand(2, 2, 3, 28, 28), torch.randint(0, 800, (2, 6))
    mask = torch.arange(6)[None] < torch.tensor(LENGTHS)[:, None]
    plain = Qwen2ForCausalLM(copy.deepcopy(model.vlm.language_model.config))  # its own rotary buffers, its own masks
    plain.load_state_dict(model.vlm.language_model.state_dict())
    assert isinstance(plain.model.rotary_emb, Qwen2RotaryEmbedding)
    plain.set_attn_implementation("eager")
    plain.eval()
    num_patches = 2 * config.vlm.num_patches
    with torch.no_grad():
        output = model(pixels, ids, mask, torch.zeros(2, 8))
        base, wrist = model.vlm.encode_images(pixels).chunk(2, dim=1)
        vision = torch.cat([wrist, base], dim=1)
        for row, embeddings in enumerate(rows_by_hand(model, vision, ids)):
            length = embeddings.shape[0]
            given = torch.zeros(1, 1, length, length) if attention == "bidirectional" else None
            hidden = plain.model(inputs_embeds=embeddings[None], attention_mask=given).last_hidden_state[0]
            base_states, wrist_states = output.vision_hidden_states[row]
            ours = torch.cat([wrist_states, base_states])
            torch.testing.assert_close(ours, hidden[1 : 1 + num_patches], atol=1e-5, rtol=1e-4)
            seg = hidden[num_patches + LENGTHS[row]]
            torch.testing.assert_close(output.seg_hidden_state[row], seg, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["dino", "siglip"])
def test_patch_features_equal_a_forward_written_out(name: str) -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(getattr(preset("tiny").vlm, name), depth=4)
    tower = build_tower(config).eval()
    images = torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        tokens = tower.patch_embed.proj(images).flatten(2).transpose(1, 2) + tower.pos_embed
        if name == "dino":
            prefix = torch.cat([tower.cls_token, tower.reg_token], dim=1).expand(2, -1, -1)
            tokens = torch.cat([prefix, tokens], dim=1)
        for block in tower.blocks[:3]:
            tokens = tokens + block.ls1(block.attn(block.norm1(tokens)))
            tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        expected = tokens[:, tower.num_prefix_tokens :]
        torch.testing.assert_close(penultimate_patches(tower, images), expected)
