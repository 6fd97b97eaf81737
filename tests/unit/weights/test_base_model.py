"""What a recipe's model starts from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import RecipeError
from pokevla.model.building import build_vla
from pokevla.model.heads.settings import BridgeQuirks
from pokevla.model.presets import preset
from pokevla.model.tokenizers.loading import load_tokenizer
from pokevla.model.vla import PokeVLA
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import PosttrainRecipe
from pokevla.recipe.sections import BridgeConfig, ModelConfig, OFTConfig
from pokevla.weights.base_model import build_base, model_config, start_queries

DEMO = Path(__file__).parents[3] / "recipes" / "demo" / "posttrain.yaml"


def test_the_first_queries_start_as_the_words_and_the_rest_stay_as_they_were() -> None:
    model = build_vla(preset("tiny"), seed=0)
    words = model.vlm.language_model.get_input_embeddings().weight.detach().clone()
    before = model.action_queries.detach().clone()
    start_queries(model, [7, 3])
    assert torch.equal(model.action_queries[:2], words[[7, 3]])
    assert torch.equal(model.action_queries[2:], before[2:])
    assert model.action_queries.requires_grad
    assert torch.equal(model.vlm.language_model.get_input_embeddings().weight, words)


@pytest.mark.parametrize("count", [0, 5])
def test_a_text_without_tokens_or_with_more_than_there_are_queries_is_refused(count: int) -> None:
    model = build_vla(preset("tiny"), seed=0)
    with pytest.raises(RecipeError, match=f"query_text is {count} tokens long, the model has 4"):
        start_queries(model, [1] * count)


def test_the_demo_s_queries_start_as_the_words_before_a_point() -> None:
    recipe = load_recipe(DEMO, ["model.vlm=null"], {}).recipe
    assert isinstance(recipe, PosttrainRecipe)
    model = build_base(recipe, LIBERO)
    assert isinstance(model, PokeVLA)
    ids = torch.tensor(load_tokenizer()("[(0.5, 0.")["input_ids"])
    assert len(ids) == 8, "as many as mini has queries"
    assert torch.equal(model.action_queries, model.vlm.language_model.get_input_embeddings()(ids))


def test_the_oft_head_gets_a_query_for_each_number_of_the_chunk_and_proprio_in_the_sequence() -> None:
    settings = ModelConfig(preset="tiny", head="oft", oft=OFTConfig(num_blocks=3, placeholders="zeros"))
    head = model_config(settings, 5, LIBERO).action_head
    assert (head.num_queries, head.num_layers, head.zero_queries, head.proprio_in_sequence) == (35, 3, True, True)
    with pytest.raises(RecipeError, match="no queries to start"):
        start_queries(build_vla(model_config(settings, 5, LIBERO)), [1])


def test_settings_of_one_head_leave_the_others_as_the_preset_has_them() -> None:
    usual = model_config(ModelConfig(preset="tiny"), 8, LIBERO)
    settings = ModelConfig(preset="tiny", bridge=BridgeConfig(variant="pro"), oft=OFTConfig(num_blocks=3))
    changed = model_config(settings, 8, LIBERO).action_head
    assert usual == preset("tiny")
    assert dataclasses.replace(changed, bridge=usual.action_head.bridge) == usual.action_head
    assert changed.bridge.variant == "pro"
    assert changed.bridge.quirks == BridgeQuirks()
