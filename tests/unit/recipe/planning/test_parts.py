"""Parameters, operations and kept activations of every part, against the real modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from benchmarks.synthetic_batches import robot_batch, vlm_batch
from pokevla.data.loading.packing import packed
from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.model.building import apply_trainable, build_vla, build_vlm, parameter_report
from pokevla.model.presets import PokeVLAConfig
from pokevla.model.vla import PokeVLA
from pokevla.model.vlm import PokeVLM
from pokevla.recipe.kinds import TrainingRecipe
from pokevla.recipe.planning.parts import ModelCost, PartCost, Sample, model_cost
from pokevla.recipe.schema import PosttrainRecipe, PretrainRecipe
from pokevla.training.objectives.objective import PosttrainObjective, PretrainObjective
from pokevla.weights.base_model import freeze_what_no_loss_reaches, model_config, trainable_spec
from tests.unit.embodiment.robots import TWO_HANDED
from tests.unit.recipe.planning.counting import LiveBytes, SavedBytes, count_flops, leaf_tensors, storages
from tests.unit.recipe.planning.recipes import posttrain, pretrain, trained

TEXT, ANSWER, SAMPLES = 12, 5, 2
PLAIN: dict[str, Any] = {"loss": {"geometry": 0.0, "segmentation": {"weight": 0}}, "cache": None}
"""Fields of a recipe without masks and geometry."""
RIVALS: dict[str, dict[str, Any]] = {
    "bridge": {"model": {"preset": "mini", "head": "bridge", "head_condition": "per_layer"}},
    "bridge-pro": {"model": {"preset": "mini", "head": "bridge", "bridge": {"variant": "pro"}}},
    "oft": {"model": {"preset": "mini", "head": "oft"}},
    "oft-zeros": {"model": {"preset": "mini", "head": "oft", "oft": {"placeholders": "zeros", "num_blocks": 3},
                            "seg_token": False}, **PLAIN},
}  # fmt: skip
"""Other action heads."""
PART_OF = {
    "dino_featurizer": "dino",
    "siglip_featurizer": "siglip",
    "coarse_prompt_encoder": "prompt_encoders",
    "fine_prompt_encoder": "prompt_encoders",
    "coarse_mask_decoder": "mask_decoders",
    "fine_mask_decoder": "mask_decoders",
}
"""Module -> part, where the names differ."""


def config_of(recipe: TrainingRecipe) -> PokeVLAConfig:
    return model_config(recipe.model, recipe.data.chunk_length, LIBERO)


def build(recipe: TrainingRecipe) -> PokeVLA | PokeVLM:
    config = config_of(recipe)
    model = build_vla(config) if isinstance(recipe, PosttrainRecipe) else build_vlm(config.vlm)
    apply_trainable(model, trainable_spec(recipe))
    if isinstance(model, PokeVLA) and recipe.loss_weights is not None:
        freeze_what_no_loss_reaches(model, recipe.loss_weights)
    model.set_activation_checkpointing(recipe.activation_checkpointing)
    return model.to(torch.bfloat16 if recipe.precision == "bf16" else torch.float32)


def part_modules(model: PokeVLA | PokeVLM) -> Iterator[tuple[str, nn.Module]]:
    """Modules that are called, each with its part."""
    vlm = model.vlm if isinstance(model, PokeVLA) else model
    for name, tower in vlm.vision_backbone.named_children():
        assert isinstance(tower, VisionTransformer)
        yield from ((PART_OF[name], module) for module in (tower.patch_embed, *tower.blocks))
    yield "projector", vlm.projector
    yield "language_model", vlm.language_model.model
    if isinstance(model, PokeVLA):
        yield "prompt_encoders", model.fine_prompt_encoder.mask_embed
        for name, module in model.named_children():
            yield PART_OF.get(name, name), module


class Step:
    """The loss of a batch, of a model built from a recipe."""

    def __init__(self, recipe: TrainingRecipe) -> None:
        self.model, config = build(recipe), config_of(recipe)
        self.model.train()
        if isinstance(recipe, PosttrainRecipe):
            assert isinstance(self.model, PokeVLA)
            self.batch: Any = robot_batch(config, SAMPLES, text_tokens=TEXT)
            self.objective: nn.Module = PosttrainObjective(self.model, recipe.loss)
        else:
            assert isinstance(self.model, PokeVLM)
            self.batch = vlm_batch(config, SAMPLES, text_tokens=TEXT, answer_tokens=ANSWER)
            if recipe.packing is not None:
                self.batch = packed(self.batch, np.zeros(SAMPLES, dtype=np.int64), config.vlm.num_patches)
            self.objective = PretrainObjective(self.model)
        self.known = storages(self.model, *leaf_tensors(self.batch))
        sample = Sample(2 if isinstance(recipe, PosttrainRecipe) else 1, TEXT, ANSWER)
        self.cost: ModelCost = model_cost(recipe, LIBERO, sample)

    def loss(self) -> Tensor:
        return self.objective(self.batch)[0]

    def saved(self) -> dict[str, int]:
        counter = SavedBytes(part_modules(self.model), self.known)
        with counter():
            self.loss()
        return {name: size // SAMPLES for name, size in counter.by_part.items()}


def part(cost: ModelCost, name: str) -> PartCost:
    return next(part for part in cost.parts if part.name == name)


# ------------------------------------------------------------------------------------------------ parameters


def parameters(recipe: TrainingRecipe, embodiment: Embodiment = LIBERO) -> dict[str, tuple[int, int]]:
    config = model_config(recipe.model, recipe.data.chunk_length, embodiment)
    with torch.device("meta"):
        model = PokeVLA(config) if isinstance(recipe, PosttrainRecipe) else PokeVLM(config.vlm)
        apply_trainable(model, trainable_spec(recipe))
    if isinstance(model, PokeVLA) and recipe.loss_weights is not None:
        freeze_what_no_loss_reaches(model, recipe.loss_weights)
    sums: dict[str, tuple[int, int]] = {}
    for name, total, trainable in parameter_report(model)[:-1]:
        before = sums.get(PART_OF.get(name, name), (0, 0))
        sums[PART_OF.get(name, name)] = (before[0] + total, before[1] + trainable)
    return sums


def counted_parameters(recipe: TrainingRecipe, embodiment: Embodiment = LIBERO) -> dict[str, tuple[int, int]]:
    cost = model_cost(recipe, embodiment)
    return {
        part.name: (part.parameters + part.adapters, part.trainable + part.adapters)
        for part in cost.parts
        if part.parameters
    }


@pytest.mark.parametrize(
    ("name", "mode", "embodiment"),
    [
        ("tiny", "frozen", LIBERO),
        ("tiny", "full", TWO_HANDED),
        ("mini", "full", LIBERO),
        ("mini", "lora", LIBERO),
        ("pocket", "lora", LIBERO),
    ],
)
def test_parameters_of_each_part_are_those_of_the_model(name: str, mode: str, embodiment: Embodiment) -> None:
    recipe = posttrain(**trained(mode, model={"preset": name}))

    assert counted_parameters(recipe, embodiment) == parameters(recipe, embodiment)


@pytest.mark.parametrize(
    "fields",
    [
        {"lora": {"rank": 3, "targets": "q_proj, fc1"}, "trainable": {"vision": "lora", "language_model": "lora"}},
        {"model": {"preset": "tiny", "geometry_width": 8}},
        {"model": {"preset": "tiny", "seg_injection": False}},
        {"loss": {"geometry": 0.0, "segmentation": {"weight": 0}}},
        {"model": {"preset": "tiny", "head_condition": "per_layer"}, "data": {"datasets": [{"path": "d"}],
                                                                               "chunk_length": 5}},
        {"model": {"preset": "tiny", "seg_token": False, "seg_injection": False}, **PLAIN},
        *RIVALS.values(),
    ],
)  # fmt: skip
def test_parameters_follow_the_recipe(fields: dict[str, Any]) -> None:
    recipe = posttrain(**{"model": {"preset": "tiny"}, **fields})

    assert counted_parameters(recipe) == parameters(recipe)


def test_published_sizes_count_as_published() -> None:
    """Counts of the published models, from their layers' shapes (docs/model.md)."""
    cost = model_cost(posttrain(**trained("lora", lora={"rank": 64})))
    counted = {part.name: part.parameters for part in cost.parts}

    assert counted["dino"] == 303_230_976
    assert counted["siglip"] == 427_680_704
    assert counted["projector"] == 27_552_000
    assert counted["language_model"] == 494_032_768
    assert counted["dino"] + counted["siglip"] + counted["language_model"] == 1_224_944_448, "the paper's 1.22 B"
    assert counted["seg_projector"] == 1_033_344
    assert counted["geometry_projector"] == 6_035_200
    assert counted["mask_decoders"] == 2 * 4_058_340
    assert counted["prompt_encoders"] == 2 * 6_220
    assert counted["proprio_projector"] == 811_776
    assert counted["action_queries"] == 57_344
    vlm = model_cost(pretrain(**trained("full")))
    assert vlm.parameters == 1_252_496_448
    final_norms = 2 * (1024 + 1152)
    assert vlm.trainable == 1_209_420_320 - final_norms, "without the unused last blocks, final norms and pooling head"


# ------------------------------------------------------------------------------------------------ activations

CASES = [
    posttrain(**trained(mode, model={"preset": name}, precision=precision))
    for name, mode, precision in (
        ("tiny", "frozen", "fp32"),
        ("tiny", "lora", "fp32"),
        ("tiny", "full", "bf16"),
        ("mini", "full", "fp32"),
        ("mini", "lora", "bf16"),
        ("mini", "frozen", "bf16"),
    )
] + [
    posttrain(**trained("full", model={"preset": "mini", "head_condition": "per_layer"}, precision="fp32")),
    posttrain(**trained("full", model={"preset": "mini", "attention": "bidirectional"}, precision="fp32")),
    posttrain(**trained("full", model={"preset": "mini"}, precision="fp32",
                        loss={"segmentation": {"weight": 1.0, "coarse": 0.5}})),
    pretrain(**trained("full", model={"preset": "mini"}, precision="bf16")),
    pretrain(**trained("lora", model={"preset": "mini"}, precision="fp32")),
    pretrain(model={"preset": "mini"}, precision="fp32"),  # vision frozen
    *(pretrain(**trained(mode, model={"preset": "mini", "attention": attention}, precision=precision), packing={})
      for mode, attention, precision in (("full", "causal", "bf16"), ("lora", "causal", "fp32"),
                                         ("full", "bidirectional", "fp32"))),
    pretrain(model={"preset": "mini"}, precision="fp32", packing={}, trainable={"language_model": "frozen"}),
    *(posttrain(**trained("full", **fields), precision="fp32") for fields in RIVALS.values()),
]  # fmt: skip


def case_name(recipe: TrainingRecipe) -> str:
    layout = "-packed" if isinstance(recipe, PretrainRecipe) and recipe.packing is not None else ""
    return (
        f"{recipe.kind}-{recipe.model.preset}-{recipe.model.head}-{recipe.trainable.language_model}-{recipe.precision}"
        f"{layout}"
    )


@pytest.mark.parametrize("recipe", CASES, ids=case_name)
def test_kept_activations_are_those_that_autograd_saves(recipe: TrainingRecipe) -> None:
    step = Step(recipe)
    saved = step.saved()
    kept = {part.name: part.kept for part in step.cost.parts}
    # Both towers' pixels are one storage. The last hidden states are saved by the head and counted with the language
    # model; what is saved between the parts (the order of tokens, the sum of losses) has no module.
    for sizes in (saved, kept):
        sizes["language_model"] += sizes.pop("action_head", 0) + sizes.pop("losses", 0)
        sizes["dino"] = sizes.get("dino", 0) + sizes.pop("siglip", 0)
    named = [name for name in kept if kept[name] or saved.get(name)]
    # A CPU keeps statistics of norms in bf16, a GPU (and the plan) in fp32.
    rel = 0.06 if recipe.precision == "bf16" else 0.03

    assert {name: saved.get(name, 0) for name in named} == {
        name: pytest.approx(kept[name], rel=rel, abs=4096) for name in named
    }
    assert sum(saved.values()) == pytest.approx(sum(kept.values()), rel=0.02)


@pytest.mark.parametrize("recipe", [
    posttrain(**trained(mode, model={"preset": "mini"}, precision="fp32", activation_checkpointing=True))
    for mode in ("lora", "full")
], ids=case_name)  # fmt: skip
def test_checkpointed_blocks_keep_only_their_inputs(recipe: TrainingRecipe) -> None:
    step = Step(recipe)
    with LiveBytes(step.known) as live:
        loss = step.loss()
        kept = live.now / SAMPLES
    assert kept == pytest.approx(sum(part.kept for part in step.cost.parts), rel=0.05)
    assert kept < model_cost(recipe.model_copy(update={"activation_checkpointing": False})).activation_bytes
    assert loss.isfinite()


# ------------------------------------------------------------------------------------------------ operations


@pytest.mark.parametrize(
    "recipe",
    [
        posttrain(**trained(mode, model={"preset": "mini"}, precision="fp32", activation_checkpointing=checkpoints))
        for mode in ("frozen", "lora", "full")
        for checkpoints in (False, True)
    ]
    + [posttrain(**trained("full", **fields), precision="fp32") for fields in RIVALS.values()]
    + [
        pretrain(**trained("full", model={"preset": "mini"}, precision="fp32")),
        pretrain(model={"preset": "mini"}, precision="fp32", activation_checkpointing=True),
        pretrain(**trained("full", model={"preset": "mini"}, precision="fp32"), packing={}),
    ],
    ids=lambda recipe: f"{case_name(recipe)}-{recipe.activation_checkpointing}",
)
def test_operations_are_those_that_torch_counts(recipe: TrainingRecipe) -> None:
    step = Step(recipe)
    matrix, attention = (number / SAMPLES for number in count_flops(step.loss))
    ours = [sum(part.matrix.total for part in step.cost.parts), sum(part.attention.total for part in step.cost.parts)]
    # A flash kernel computes the scores again in its backward pass: 5 products there, where we count 4.
    again = sum(part.attention.backward for part in step.cost.parts) / 4

    assert matrix + attention == pytest.approx(sum(ours) + again + step.cost.recomputed, rel=1e-3)
    if not recipe.activation_checkpointing:
        assert step.cost.recomputed == 0
        assert matrix == pytest.approx(ours[0], rel=1e-3)
        assert attention == pytest.approx(ours[1] + again, rel=1e-6)
