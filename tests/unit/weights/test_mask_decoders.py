"""Mask decoders that start from a SAM checkpoint: all of it, in both stages, or an error that names the tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pokevla.embodiment.libero import LIBERO
from pokevla.errors import CheckpointError
from pokevla.model.building import build_vla
from pokevla.model.presets import preset
from pokevla.model.vla import PokeVLA
from pokevla.recipe.load import load_recipe, recipe_hash
from pokevla.recipe.schema import PosttrainRecipe
from pokevla.recipe.values import learnt_values
from pokevla.weights.base_model import build_base
from pokevla.weights.conversion.exporting import export_weights
from pokevla.weights.conversion.name_maps import ours_of
from pokevla.weights.formats.sam import MATRIX, OFFICIAL_NAMES
from pokevla.weights.frozen_hash import frozen_hash
from pokevla.weights.mask_decoders import open_mask_decoder, start_mask_decoders
from tests.published_sam import bring_in, write_official
from tests.toys import RECIPE

FOURIER = "prompt_encoder.shared_embedding.positional_embedding"


@pytest.fixture
def checkpoint(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    """A `.pth` and its tensors without the image encoder, under our names."""
    state = write_official(tmp_path / "sam_vit_t.pth")
    named = {ours: value for name, value in state.items() for ours in ours_of(name, OFFICIAL_NAMES) or ()}
    decoder = {FOURIER if n == MATRIX else n: v for n, v in named.items() if not n.startswith("vision_encoder.")}
    return tmp_path / "sam_vit_t.pth", decoder


def stage_of(model: PokeVLA, stage: str) -> dict[str, Tensor]:
    state = model.state_dict()
    parts = (f"{stage}_prompt_encoder.", f"{stage}_mask_decoder.")
    return {name.removeprefix(f"{stage}_"): value for name, value in state.items() if name.startswith(parts)}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("form", ["pth", "imported", "hf"])
def test_both_stages_are_the_published_decoder(
    checkpoint: tuple[Path, dict[str, Tensor]], tmp_path: Path, form: str
) -> None:
    path, expected = checkpoint
    if form != "pth":
        path = bring_in("sam", path, tmp_path / "ours")
    if form == "hf":
        path = export_weights("sam", path, tmp_path / "hf", ["hf"])["hf"]
    model = build_vla(preset("tiny"))
    rest = {name: value for name, value in model.state_dict().items() if not name.startswith(("coarse_", "fine_"))}
    start_mask_decoders(model, path)
    assert len(expected) == 137
    assert same(stage_of(model, "coarse"), expected)
    assert same(stage_of(model, "fine"), expected)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in rest.items())


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., PosttrainRecipe]:
    recipe = tmp_path / "robot.yaml"
    recipe.write_text(RECIPE.format(name="robot", output=tmp_path, dataset=tmp_path / "data", cache=tmp_path / "cache"))

    def build(*overrides: str) -> PosttrainRecipe:
        loaded = load_recipe(recipe, list(overrides)).recipe
        assert isinstance(loaded, PosttrainRecipe)
        return loaded

    return build


def test_a_recipe_s_model_starts_from_it_and_another_file_has_another_hash(
    checkpoint: tuple[Path, dict[str, Tensor]], tmp_path: Path, load: Callable[..., PosttrainRecipe]
) -> None:
    path, expected = checkpoint
    other = tmp_path / "other.pth"
    write_official(other, seed=1)
    models = [build_base(load(f"model.sam={one}"), LIBERO) for one in (path, other)] + [build_base(load(), LIBERO)]
    assert isinstance(models[0], PokeVLA)
    assert same(stage_of(models[0], "fine"), expected)
    # Checkpoints store no frozen weights; this hash refuses a resume with another file.
    assert len({frozen_hash(model) for model in models}) == 3


def test_recipes_without_it_keep_their_hash(load: Callable[..., PosttrainRecipe]) -> None:
    assert "sam" not in learnt_values(load())["model"], "what a hash is made of"
    assert recipe_hash(load()) != recipe_hash(load("model.sam=sam.pth"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mask_decoder.iou_token.weight", torch.zeros(1, 7), r"iou_token\.weight has shape \(1, 7\), our .* \(1, 16\)"),
        ("mask_decoder.iou_token.weight", None, r"lacks mask_decoder\.iou_token\.weight \(shape \(1, 16\)"),
        ("mask_decoder.more", torch.zeros(2), r"holds mask_decoder\.more of shape \(2,\)"),
        ("prompt_encoder.no_mask_embed.weight", torch.full((1, 16), torch.nan), r"no_mask_embed.* NaN or infinite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(
    checkpoint: tuple[Path, dict[str, Tensor]], name: str, value: Tensor | None, message: str
) -> None:
    path, _ = checkpoint
    state = torch.load(path, weights_only=True)
    state.pop(name, None)
    torch.save({**state, **({} if value is None else {name: value})}, path)
    with pytest.raises(CheckpointError, match=rf"model\.sam: .*{message}"):
        start_mask_decoders(build_vla(preset("tiny")), path)


def test_a_decoder_of_another_size_is_refused_without_reading_it(checkpoint: tuple[Path, dict[str, Tensor]]) -> None:
    with pytest.raises(CheckpointError, match=r"has shape \(.*\), our .* has \(.*pocket: ViT-B, L or H"):
        open_mask_decoder(preset("pocket").segmentation, checkpoint[0])


def test_a_file_that_is_not_sam_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"model\.sam: .*holds weight of shape \(3,\)"):
        open_mask_decoder(preset("tiny").segmentation, tmp_path / "other.pth")
