"""LoRA is merged as peft does it, and an incomplete adapter is refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from pokevla.errors import CheckpointError, UsageError
from pokevla.model.building import TrainableSpec, apply_trainable, build_vlm
from pokevla.model.presets import preset
from pokevla.weights.named_tensors import MergedWeights, WeightSpec, has_adapters, part_of


class MemoryWeights:
    """Weights in a dict."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    @property
    def specs(self) -> Mapping[str, WeightSpec]:
        return {name: WeightSpec(tuple(value.shape), value.dtype) for name, value in self.tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name].clone()


def adapted() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a.base_layer.weight": torch.randn(6, 5, generator=generator),
        "a.base_layer.bias": torch.randn(6, generator=generator),
        "a.lora_A.default.weight": torch.randn(2, 5, generator=generator),
        "a.lora_B.default.weight": torch.randn(6, 2, generator=generator),
        "plain.weight": torch.randn(3, 3, generator=generator),
    }


def test_merged_weights_have_plain_names_and_values() -> None:
    tensors = adapted()
    merged = MergedWeights(MemoryWeights(tensors), scaling=1.5)
    assert list(merged.specs) == ["a.weight", "a.bias", "plain.weight"]
    update = 1.5 * tensors["a.lora_B.default.weight"] @ tensors["a.lora_A.default.weight"]
    assert torch.allclose(merged.read("a.weight"), tensors["a.base_layer.weight"] + update)
    assert torch.equal(merged.read("a.bias"), tensors["a.base_layer.bias"])
    assert torch.equal(merged.read("plain.weight"), tensors["plain.weight"])
    assert not has_adapters(merged)


def test_model_of_merged_weights_computes_what_the_adapted_one_does() -> None:
    spec = TrainableSpec(lora_rank=2, lora_alpha=4.0)
    adapted_vlm = apply_trainable(build_vlm(preset("tiny").vlm, seed=1), spec).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted_vlm.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=generator)
    merged = MergedWeights(MemoryWeights(dict(adapted_vlm.state_dict())), scaling=spec.lora_alpha / spec.lora_rank)
    plain = build_vlm(preset("tiny").vlm, seed=2).eval()
    plain.load_state_dict({name: merged.read(name) for name in merged.specs})
    inputs = (torch.rand(1, 1, 3, 28, 28, generator=generator), torch.tensor([[5, 6, 7]]), torch.ones(1, 3).bool())
    torch.testing.assert_close(plain(*inputs), adapted_vlm(*inputs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("missing", ["a.base_layer.weight", "a.lora_B.default.weight"])
def test_half_an_adapter_is_refused(missing: str) -> None:
    tensors = adapted()
    del tensors[missing]
    with pytest.raises(CheckpointError, match=f"has no {missing}"):
        MergedWeights(MemoryWeights(tensors), scaling=1.0)


def test_weights_without_lora_are_refused() -> None:
    with pytest.raises(UsageError, match="already plain"):
        MergedWeights(MemoryWeights({"w": torch.zeros(1)}), scaling=1.0)


def test_a_merge_that_is_not_finite_is_refused() -> None:
    tensors = adapted()
    tensors["a.lora_A.default.weight"][0, 0] = torch.inf
    with pytest.raises(CheckpointError, match=r"a\.weight gives NaN or infinity"):
        MergedWeights(MemoryWeights(tensors), scaling=1.0).read("a.weight")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("vlm.language_model.model.embed_tokens.weight", "language_model"),
        ("language_model.lm_head.weight", "language_model"),
        ("vlm.vision_backbone.dino_featurizer.blocks.0.attn.qkv.weight", "dino_featurizer"),
        ("action_head.layers.0.weight", "action_head"),
        ("seg_token", "seg_token"),
    ],
)
def test_parts_are_named_as_in_the_parameter_report(name: str, part: str) -> None:
    assert part_of(name) == part
