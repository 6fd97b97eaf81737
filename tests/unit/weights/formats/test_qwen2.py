"""Qwen2 as transformers writes it: imported, exported again bit for bit, and refused when it does not come out even."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from pokevla.errors import CheckpointError
from pokevla.weights.conversion.exporting import export_weights
from pokevla.weights.conversion.importing import import_weights, open_source
from pokevla.weights.conversion.weight_format import ImportRequest


def small(*, tied: bool = True) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=tied,
        )
    )  # fmt: skip


def bring_in(source: Path, out: Path, preset: str | None = None) -> None:
    import_weights(ImportRequest("qwen2", open_source("qwen2", source), preset), out)


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype
        and torch.equal(first[name].view(torch.uint8), second[name].view(torch.uint8))
        for name in first
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_export_gives_back_what_was_imported_bit_for_bit(tmp_path: Path, tied: bool, dtype: torch.dtype) -> None:
    source = tmp_path / "source"
    small(tied=tied).to(dtype).save_pretrained(source)
    bring_in(source, tmp_path / "ours")
    export_weights("qwen2", tmp_path / "ours", tmp_path / "again")
    given, back = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "again"))
    assert same_bits(given, back)
    assert json.loads((tmp_path / "again/config.json").read_text()) == json.loads((source / "config.json").read_text())
    assert Qwen2ForCausalLM.from_pretrained(tmp_path / "again").config.tie_word_embeddings is tied


def test_shards_are_joined(tmp_path: Path) -> None:
    model = small()
    model.save_pretrained(tmp_path / "source", max_shard_size="20KB")
    assert len(list((tmp_path / "source").glob("*.safetensors"))) > 2
    bring_in(tmp_path / "source", tmp_path / "ours")
    ours = load_file(tmp_path / "ours/model.safetensors")
    expected = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    assert same_bits(ours, expected)


def edited(tmp_path: Path, **changes: Tensor | None) -> Path:
    source = tmp_path / "source"
    small().save_pretrained(source)
    state = load_file(source / "model.safetensors")
    for name, value in changes.items():
        name = name.replace("__", ".")
        state.pop(name, None)
        if value is not None:
            state[name] = value
    save_file(state, source / "model.safetensors")
    return source


def test_an_unexpected_tensor_is_named_with_its_shape(tmp_path: Path) -> None:
    source = edited(tmp_path, model__layers__2__mlp__up_proj__weight=torch.zeros(48, 32))
    with pytest.raises(CheckpointError, match=r"holds model\.layers\.2\.mlp\.up_proj\.weight of shape \(48, 32\)"):
        bring_in(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_missing_tensor_is_named_with_its_shape(tmp_path: Path) -> None:
    source = edited(tmp_path, model__norm__weight=None)
    with pytest.raises(CheckpointError, match=r"lacks model\.norm\.weight \(shape \(32,\)"):
        bring_in(source, tmp_path / "ours")


def test_another_size_names_the_tensor_and_both_shapes(tmp_path: Path) -> None:
    source = edited(tmp_path, model__norm__weight=torch.zeros(31))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight has shape \(31,\), our .* has \(32,\)"):
        bring_in(source, tmp_path / "ours")


def test_a_word_head_that_is_tied_only_by_its_config_is_refused(tmp_path: Path) -> None:
    source = edited(tmp_path, lm_head__weight=torch.zeros(96, 32))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        bring_in(source, tmp_path / "ours")


def test_an_export_as_another_kind_names_both(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "source")
    bring_in(tmp_path / "source", tmp_path / "ours")
    with pytest.raises(CheckpointError, match="This is a qwen2, not a timm"):
        export_weights("timm", tmp_path / "ours", tmp_path / "out")
    assert not (tmp_path / "out").exists()
