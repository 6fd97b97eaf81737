"""LoRA is applied to the selected layers only and initially changes no output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pokevla.errors import UsageError
from pokevla.model.building import build_vlm, parameter_report
from pokevla.model.lora import TrainableSpec, apply_trainable, has_lora
from pokevla.model.presets import preset
from pokevla.model.vla import PokeVLA

SPEC = TrainableSpec(lora_rank=2, lora_alpha=4.0)


def trainable_names(model: torch.nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_lora_starts_as_nothing_and_then_changes_the_outputs(
    tiny_vla: PokeVLA, make_inputs: Callable[..., dict[str, Tensor]]
) -> None:
    inputs = make_inputs(tiny_vla.config)
    plain = tiny_vla(**inputs)
    apply_trainable(tiny_vla, SPEC)
    assert torch.equal(tiny_vla(**inputs).actions, plain.actions)
    with torch.no_grad():
        for name, parameter in tiny_vla.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    adapted = tiny_vla(**inputs)
    assert not torch.allclose(adapted.actions, plain.actions, atol=1e-4)
    assert has_lora(tiny_vla)


def test_all_linear_takes_every_used_linear_but_not_the_word_head(tiny_vla: PokeVLA) -> None:
    apply_trainable(tiny_vla, SPEC)
    adapted = {name.partition(".lora_A")[0] for name in trainable_names(tiny_vla) if "lora_A" in name}
    assert "vlm.vision_backbone.dino_featurizer.blocks.0.attn.qkv" in adapted
    assert "vlm.vision_backbone.siglip_featurizer.blocks.0.mlp.fc2" in adapted
    assert "vlm.projector.fc1" in adapted
    assert "vlm.language_model.model.layers.1.mlp.down_proj" in adapted
    assert not [name for name in adapted if "lm_head" in name or "blocks.1" in name or "attn_pool" in name]
    assert len(adapted) == 2 * 4 + 3 + 2 * 7
    base = [name for name in trainable_names(tiny_vla) if name.startswith("vlm.") and "lora_" not in name]
    assert base == []
    own = [name for name in trainable_names(tiny_vla) if not name.startswith("vlm.")]
    assert {name.split(".")[0] for name in own} >= {"seg_token", "action_queries", "action_head", "seg_projector"}


def test_each_part_follows_its_own_mode(tiny_vla: PokeVLA) -> None:
    apply_trainable(
        tiny_vla,
        TrainableSpec(
            vision="frozen", projector="full", language_model="lora", lora_rank=2, lora_targets="q_proj,v_proj"
        ),
    )
    vlm_names = [name for name in trainable_names(tiny_vla) if name.startswith("vlm.")]
    assert not [name for name in vlm_names if "vision_backbone" in name]
    assert len([name for name in vlm_names if ".projector." in name]) == 6
    adapted = [name for name in vlm_names if "language_model" in name]
    assert adapted
    assert all("q_proj.lora_" in name or "v_proj.lora_" in name for name in adapted)


def test_full_training_leaves_the_unused_vision_block_frozen() -> None:
    vlm = apply_trainable(build_vlm(preset("tiny").vlm), TrainableSpec("full", "full", "full"))
    frozen = {name for name, parameter in vlm.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert all(".blocks.1." in n or ".norm." in n or ".attn_pool." in n for n in frozen)


def test_lora_weights_are_a_pure_function_of_the_seed() -> None:
    models = [apply_trainable(build_vlm(preset("tiny").vlm), SPEC, seed=seed) for seed in (3, 3, 4)]
    first, same, other = ([p for n, p in m.named_parameters() if "lora_A" in n] for m in models)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_lora_at_pocket_size_counts_as_computed_by_hand() -> None:
    with torch.device("meta"):
        vlm = apply_trainable(build_vlm(preset("pocket").vlm), TrainableSpec(lora_rank=64))
    trainable = {part: count for part, _, count in parameter_report(vlm)}
    assert trainable["language_model"] == 35_192_832
    # The last of the 24 and 27 blocks is never used, so it has no adapter.
    assert trainable["dino_featurizer"] == 23 * 64 * 16 * 1024
    assert trainable["siglip_featurizer"] == 26 * 64 * (6 * 1152 + 2 * (1152 + 4304))


def test_wrong_specs_are_named(tiny_vla: PokeVLA, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean q_proj"):
        apply_trainable(tiny_vla, TrainableSpec(lora_targets="q_prj"))
    with pytest.raises(UsageError, match="half"):
        apply_trainable(tiny_vla, TrainableSpec(vision="half"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="lora_rank"):
        apply_trainable(tiny_vla, TrainableSpec(lora_rank=0))
    apply_trainable(tiny_vla, SPEC)
    with pytest.raises(UsageError, match="merge-lora"):
        apply_trainable(tiny_vla, SPEC)
