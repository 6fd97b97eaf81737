"""Differences of weights are what they are, in chunks or not, and equal means to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from checkpoints_tools import diff as module
from checkpoints_tools.diff import Difference, diff, recipe_differences
from checkpoints_tools.source import WeightsSource
from pokevla.recipe.load import load_recipe
from pokevla.recipe.schema import TrainRecipe


def compared(tmp_path: Path, one: dict[str, Tensor], two: dict[str, Tensor]) -> Difference:
    sources = []
    for name, state in (("one", one), ("two", two)):
        (tmp_path / name).mkdir()
        save_file(state, tmp_path / name / "model.safetensors")
        sources.append(WeightsSource(tmp_path / name))
    return diff(*sources)


def test_the_same_weights_are_equal_nan_included(tmp_path: Path) -> None:
    state = {"a.w": torch.tensor([1.0, torch.nan])}
    result = compared(tmp_path, state, {"a.w": state["a.w"].clone()})
    assert result.weights_equal
    assert result.parts[0].non_finite == 0


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_differences_are_added_up_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    one = {"a.w": torch.full((2, 4), 3.0), "a.v": torch.zeros(5), "b.w": torch.ones(7)}
    two = {name: value.clone() for name, value in one.items()}
    two["a.w"][1, 3] += 0.5
    two["a.w"][0, 0] -= 0.25
    result = compared(tmp_path, one, two)
    parts = {part.name: part for part in result.parts}
    assert not result.weights_equal
    assert (parts["a"].tensors, parts["a"].differing, parts["b"].differing) == (2, 1, 0)
    assert parts["a"].max_abs == 0.5
    assert parts["a"].relative == pytest.approx((0.5**2 + 0.25**2) ** 0.5 / (8 * 9) ** 0.5)
    assert parts["b"].relative == 0.0


def test_a_weight_gone_wrong_is_counted_and_does_not_hide_the_rest(tmp_path: Path) -> None:
    result = compared(tmp_path, {"a": torch.tensor([1.0, 1.0])}, {"a": torch.tensor([torch.nan, 3.0])})
    assert result.parts[0].non_finite == 1
    assert result.parts[0].max_abs == 2.0


def test_names_and_shapes_that_differ_are_told(tmp_path: Path) -> None:
    one = {"both": torch.ones(2), "shape": torch.ones(2), "first": torch.ones(1)}
    two = {"both": torch.ones(2), "shape": torch.ones(3), "second": torch.ones(1)}
    result = compared(tmp_path, one, two)
    assert (result.only_first, result.only_second) == (["first"], ["second"])
    assert result.other_shape == {"shape": [[2], [3]]}
    assert not result.weights_equal


def test_recipes_differ_field_by_field(tmp_path: Path) -> None:
    text = "kind: pretrain\nname: x\ndata: {{datasets: [{{path: {path}}}]}}\nmodel: {{preset: tiny}}\n"
    text += "batch: {{global: 8, micro: 2}}\nsteps: 10\noptim: {{lr: {lr}}}\n"

    def recipe(path: str, lr: float) -> TrainRecipe:
        (tmp_path / f"{path}.yaml").write_text(text.format(path=path, lr=lr))
        loaded = load_recipe(tmp_path / f"{path}.yaml").recipe
        assert isinstance(loaded, TrainRecipe)
        return loaded

    rows = recipe_differences(recipe("p", 1e-3), recipe("q", 3e-4))
    assert rows == {"data.datasets.0.path": ["p", "q"], "optim.lr": [1e-3, 3e-4]}
