"""Presets are consistent and survive JSON, and pocket has the published shapes."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from pokevla.errors import UsageError
from pokevla.model.building import parameter_report
from pokevla.model.presets import (
    PRESET_NAMES,
    check_config,
    config_from_dict,
    preset,
    to_dict,
    vlm_config_from_dict,
)
from pokevla.model.vla import PokeVLA


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_every_preset_fits_together_and_survives_json(name: str) -> None:
    config = preset(name)
    check_config(config.vlm)
    assert config_from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert vlm_config_from_dict(json.loads(json.dumps(to_dict(config.vlm)))) == config.vlm


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean pocket"):
        preset("poket")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_view": 2}, "num_views"),
        ({"vlm": 3}, "config.vlm must be a mapping"),
        ({"geometry": {"grid": 2}}, "lacks target_dim"),
    ],
)
def test_broken_config_is_named(change: dict[str, object], message: str) -> None:
    values = {**to_dict(preset("tiny")), **change}
    with pytest.raises(UsageError, match=message):
        config_from_dict(values)


def test_unknown_attention_is_refused() -> None:
    values = to_dict(preset("tiny").vlm)
    values["attention"] = "sideways"
    with pytest.raises(UsageError, match="sideways"):
        vlm_config_from_dict(values)


def test_clashing_sizes_are_named() -> None:
    config = preset("tiny").vlm
    with pytest.raises(UsageError, match="image_size"):
        check_config(dataclasses.replace(config, image_size=56))
    odd = dataclasses.replace(config.language_model, num_kv_heads=3)
    with pytest.raises(UsageError, match="num_kv_heads"):
        check_config(dataclasses.replace(config, language_model=odd))
    fine = dataclasses.replace(config.siglip, patch_size=7)
    with pytest.raises(UsageError, match="patch by patch"):
        check_config(dataclasses.replace(config, siglip=fine))


@pytest.fixture(scope="module")
def pocket() -> PokeVLA:
    with torch.device("meta"):  # shapes only, no memory
        return PokeVLA(preset("pocket"))


def test_pocket_counts_what_the_paper_counts(pocket: PokeVLA) -> None:
    totals = {part: total for part, total, _ in parameter_report(pocket)}
    encoders = totals["dino_featurizer"] + totals["siglip_featurizer"] + totals["language_model"]
    assert encoders == 1_224_944_448  # the paper's 1.22 B (docs/model.md)
    assert totals["dino_featurizer"] == 303_230_976
    assert totals["siglip_featurizer"] == 427_680_704
    assert totals["language_model"] == 494_032_768
    assert totals["projector"] == 27_552_000
    assert totals["coarse_mask_decoder"] == 4_058_340
    assert totals["coarse_prompt_encoder"] == 6_220
    assert totals["seg_projector"] == 1_033_344
    assert totals["geometry_projector"] == 6_035_200
    assert totals["proprio_projector"] == 811_776
    assert totals["action_queries"] == 57_344


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vision_backbone.dino_featurizer.blocks.23.attn.qkv.weight", (3072, 1024)),
        ("vision_backbone.dino_featurizer.blocks.0.ls1.gamma", (1024,)),
        ("vision_backbone.dino_featurizer.reg_token", (1, 4, 1024)),
        ("vision_backbone.siglip_featurizer.attn_pool.latent", (1, 1, 1152)),
        ("vision_backbone.siglip_featurizer.blocks.26.mlp.fc1.weight", (4304, 1152)),
        ("projector.fc1.weight", (8704, 2176)),
        ("projector.fc3.weight", (896, 896)),
        ("language_model.model.embed_tokens.weight", (151936, 896)),
        ("language_model.model.layers.23.self_attn.k_proj.bias", (128,)),
        ("language_model.model.layers.0.mlp.gate_proj.weight", (4864, 896)),
    ],
)
def test_pocket_has_the_published_names_and_shapes(pocket: PokeVLA, name: str, shape: tuple[int, ...]) -> None:
    assert tuple(pocket.vlm.state_dict()[name].shape) == shape
