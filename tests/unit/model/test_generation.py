"""Generation: the KV cache changes nothing, rows end by themselves, and sampling does not depend on the batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pokevla.errors import UsageError
from pokevla.model.building import build_vlm
from pokevla.model.generation import Sampling, StopStrings, generate, next_tokens, uniform_draws
from pokevla.model.presets import preset
from pokevla.model.tokenizers.loading import load_tokenizer
from pokevla.model.vlm import PokeVLM

NEVER = [-1]


def build() -> PokeVLM:
    return build_vlm(preset("tiny").vlm, seed=1).eval()


def text_inputs(make_inputs: Callable[..., dict[str, Tensor]], *lengths: int) -> dict[str, Tensor]:
    inputs = make_inputs(preset("tiny"), lengths)
    return {name: inputs[name] for name in ("pixel_values", "input_ids", "attention_mask")}


def test_generation_with_cache_equals_running_everything_again(
    make_inputs: Callable[..., dict[str, Tensor]],
) -> None:
    model, inputs = build(), text_inputs(make_inputs, 3, 9, 6)
    generated = generate(model, **inputs, max_new_tokens=6, stop_ids=NEVER)
    assert generated.shape == (3, 6)
    for row, length in enumerate((3, 9, 6)):
        ids = inputs["input_ids"][row : row + 1, :length]
        for step in range(6):
            images = inputs["pixel_values"][row : row + 1]
            token = model(images, ids, torch.ones_like(ids).bool())[0, -1].argmax()
            assert token == generated[row, step]
            ids = torch.cat([ids, token.view(1, 1)], dim=1)


def test_a_row_that_ended_stays_ended(make_inputs: Callable[..., dict[str, Tensor]]) -> None:
    model, inputs = build(), text_inputs(make_inputs, 3, 9)
    free = generate(model, **inputs, max_new_tokens=5, stop_ids=NEVER)
    end = int(free[0, 1])
    ended = generate(model, **inputs, max_new_tokens=5, stop_ids=[end, -1])
    assert ended[0, 1:].tolist() == [end] * (ended.shape[1] - 1)
    assert generate(model, **inputs, max_new_tokens=0, stop_ids=[7]).shape == (2, 0)


def test_sampled_text_does_not_depend_on_the_other_rows(make_inputs: Callable[..., dict[str, Tensor]]) -> None:
    model, inputs = build(), text_inputs(make_inputs, 3, 9, 6)
    sampling = Sampling(temperature=1.5, top_p=0.9, seed=3)
    together = generate(model, **inputs, max_new_tokens=8, stop_ids=NEVER, sampling=sampling, rows=[10, 11, 12])
    for row, length in enumerate((3, 9, 6)):
        alone = {name: value[row : row + 1] for name, value in inputs.items()}
        alone = {name: value if name == "pixel_values" else value[:, :length] for name, value in alone.items()}
        text = generate(model, **alone, max_new_tokens=8, stop_ids=NEVER, sampling=sampling, rows=[10 + row])
        assert text[0].tolist() == together[row].tolist()
    other = generate(model, **inputs, max_new_tokens=8, stop_ids=NEVER, sampling=Sampling(1.5, 0.9, seed=4))
    assert other.tolist() != together.tolist()


def test_a_stop_string_ends_its_row_only(make_inputs: Callable[..., dict[str, Tensor]]) -> None:
    model, inputs, tokenizer = build(), text_inputs(make_inputs, 3, 9), load_tokenizer()
    free = generate(model, **inputs, max_new_tokens=6, stop_ids=[5])
    piece = tokenizer.decode(free[0, :2].tolist())
    assert piece not in tokenizer.decode(free[1].tolist())
    ended = generate(model, **inputs, max_new_tokens=6, stop_ids=[5], stop=StopStrings(tokenizer, (piece,)))
    assert ended[0].tolist() == [*free[0, :2].tolist(), 5, 5, 5, 5]
    assert ended[1].tolist() == free[1].tolist()


def test_samples_follow_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.05])
    draws = uniform_draws(0, range(20), 1000).flatten()
    logits = probabilities.log().expand(len(draws), -1)
    for top_p, kept in ((1.0, 5), (0.8, 3), (0.5, 1), (0.01, 1)):
        tokens = next_tokens(logits, Sampling(temperature=1.0, top_p=top_p), draws)
        expected = probabilities.clone()
        expected[kept:] = 0
        shares = torch.bincount(tokens.flatten(), minlength=5) / len(draws)
        assert (shares - expected / expected.sum()).abs().max() < 0.012  # three deviations of 20,000 draws
        assert not shares[kept:].any()


def test_the_extreme_draws_choose_possible_tokens() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]])
    highest = torch.tensor([1.0 - 2**-24])
    assert next_tokens(logits, Sampling(1.0), torch.zeros(1)).item() == 2
    assert next_tokens(logits, Sampling(1.0), highest).item() == 0
    assert next_tokens(logits, Sampling(1e-4, 0.9), highest).item() == 2


def test_bad_settings_are_named(make_inputs: Callable[..., dict[str, Tensor]]) -> None:
    for settings in ({"temperature": -1.0}, {"temperature": float("nan")}, {"top_p": 0.0}, {"top_p": 1.1}):
        with pytest.raises(UsageError, match=next(iter(settings))):
            Sampling(**settings)
    with pytest.raises(UsageError, match="stop token"):
        generate(build(), **text_inputs(make_inputs, 3), max_new_tokens=2, stop_ids=[])
    with pytest.raises(UsageError, match="2 row numbers for 1 rows"):
        generate(build(), **text_inputs(make_inputs, 3), max_new_tokens=2, stop_ids=NEVER, rows=[1, 2])
