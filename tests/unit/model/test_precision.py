"""No cast rounds a buffer of the model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pokevla.model.precision import ExactBuffers
from pokevla.model.segmentation import dense_position_encoding
from pokevla.model.vla import PokeVLA

CASTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "bfloat16()": lambda module: module.bfloat16(),
    "half()": lambda module: module.half(),
    "to(bfloat16)": lambda module: module.to(torch.bfloat16),
    "to(device, bfloat16)": lambda module: module.to("cpu", torch.bfloat16),
    "there and back": lambda module: module.bfloat16().float(),
}
MATRIX = "coarse_prompt_encoder.shared_embedding.positional_embedding"


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_a_cast_model_keeps_every_buffer(tiny_vla: PokeVLA, cast: Callable[[nn.Module], nn.Module]) -> None:
    before = {name: buffer.clone() for name, buffer in tiny_vla.named_buffers()}
    assert {MATRIX, MATRIX.replace("coarse", "fine"), "vlm.vision_backbone.mean"} < before.keys()
    cast(nn.ModuleList([tiny_vla]))  # from outside, as an engine that holds the model casts it
    after = dict(tiny_vla.named_buffers())
    assert before.keys() == after.keys()
    assert [name for name, buffer in after.items() if not torch.equal(buffer, before[name])] == []
    assert {buffer.dtype for buffer in after.values()} == {torch.float32}


def test_a_cast_model_rounds_its_parameters(tiny_vla: PokeVLA) -> None:
    tiny_vla.bfloat16()
    assert {parameter.dtype for parameter in tiny_vla.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("part", ["vlm", "vlm.vision_backbone", "coarse_prompt_encoder", "fine_prompt_encoder"])
def test_a_part_that_is_cast_alone_keeps_its_buffers(tiny_vla: PokeVLA, part: str) -> None:
    module = tiny_vla.get_submodule(part).bfloat16()
    assert {buffer.dtype for buffer in module.buffers()} == {torch.float32}


def test_position_code_of_a_bfloat16_model_is_that_of_the_model(tiny_vla: PokeVLA) -> None:
    exact = dense_position_encoding(tiny_vla.coarse_prompt_encoder, 4)
    assert torch.equal(dense_position_encoding(tiny_vla.bfloat16().coarse_prompt_encoder, 4), exact)


def test_bfloat16_masks_are_near_those_in_float32(
    tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    inputs = make_inputs(tiny_vla.config)
    with torch.no_grad():
        exact = tiny_vla(**inputs).fine_logits
        rounded = copy.deepcopy(tiny_vla).bfloat16()(**inputs).fine_logits
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).norm() < 0.05 * exact.norm()


def test_buffers_follow_to_another_device_and_to_a_wider_type(tiny_vla: PokeVLA) -> None:
    wide = copy.deepcopy(tiny_vla).double()
    assert {buffer.dtype for buffer in wide.buffers()} == {torch.float64}
    assert {buffer.device.type for buffer in tiny_vla.to("meta", torch.bfloat16).buffers()} == {"meta"}


def test_whole_numbers_and_absent_buffers_are_left_alone() -> None:
    module = ExactBuffers()
    module.register_buffer("count", torch.tensor(3))
    module.register_buffer("nothing", None)
    module.bfloat16()
    assert module.count.dtype == torch.int64
    assert module.nothing is None
