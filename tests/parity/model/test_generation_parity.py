"""Our generation equals transformers' `generate` on the same weights, token by token."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, Qwen2ForCausalLM
from transformers.generation.logits_process import TemperatureLogitsWarper, TopPLogitsWarper

from pokevla.model.building import build_vlm
from pokevla.model.generation import generate, nucleus
from pokevla.model.presets import preset
from pokevla.model.vlm import PokeVLM

LENGTHS = (3, 9, 6, 1)
NEW = 24


def model_and_inputs() -> tuple[PokeVLM, dict[str, Tensor]]:
    # fan_in weights: with the library's 0.02 this small model repeats one token for ever
    model = build_vlm(dataclasses.replace(preset("tiny").vlm, linear_init="fan_in"), seed=5).eval()
    generator = torch.Generator().manual_seed(0)
    width, size = max(LENGTHS), model.config.image_size
    return model, {
        "pixel_values": torch.rand(len(LENGTHS), 2, 3, size, size, generator=generator),
        "input_ids": torch.randint(0, 800, (len(LENGTHS), width), generator=generator),
        "attention_mask": torch.arange(width)[None] < torch.tensor(LENGTHS)[:, None],
    }


def left_padded(model: PokeVLM, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Embeddings built by hand, with the padding on the left, as transformers wants them, and their mask."""
    vision = model.encode_images(inputs["pixel_values"])
    words = model.language_model.get_input_embeddings()(inputs["input_ids"])
    rows = [torch.cat([words[row, :1], vision[row], words[row, 1:length]]) for row, length in enumerate(LENGTHS)]
    longest = max(len(row) for row in rows)
    padded = torch.stack([torch.cat([row.new_zeros(longest - len(row), row.shape[1]), row]) for row in rows])
    return padded, torch.stack([torch.arange(longest) >= longest - len(row) for row in rows]).long()


@pytest.mark.parametrize("num_stops", [0, 1, 3])
def test_greedy_generation_equals_transformers_token_by_token(num_stops: int) -> None:
    model, inputs = model_and_inputs()
    plain = Qwen2ForCausalLM(copy.deepcopy(model.language_model.config)).eval()  # its own rotary buffers and masks
    plain.load_state_dict(model.language_model.state_dict())
    free = generate(model, **inputs, max_new_tokens=NEW, stop_ids=[1023])
    assert len(set(free.flatten().tolist())) > 4  # not one token repeated
    stops = [1023, *(int(free[row, 2 + 3 * row]) for row in range(num_stops))]
    with torch.no_grad():
        embeds, mask = left_padded(model, inputs)
        config = GenerationConfig(max_new_tokens=NEW, do_sample=False, eos_token_id=stops, pad_token_id=stops[0])
        theirs = plain.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=config)
    ours = generate(model, **inputs, max_new_tokens=NEW, stop_ids=stops)
    assert isinstance(theirs, Tensor)
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_sampling_draws_from_the_distribution_of_transformers(temperature: float, top_p: float) -> None:
    logits = 3 * torch.randn(64, 1024, generator=torch.Generator().manual_seed(2))
    ids = torch.zeros(64, 1, dtype=torch.int64)
    theirs = TemperatureLogitsWarper(temperature)(ids, logits) if temperature != 1.0 else logits  # type: ignore[arg-type]
    theirs = TopPLogitsWarper(top_p)(ids, theirs)  # type: ignore[arg-type]
    assert torch.equal(nucleus(logits / temperature, top_p), theirs)
