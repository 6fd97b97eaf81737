"""Generates text with a PokeVLM: greedy or sampled, in batches, with a KV cache.

Each row continues at its own length: cached padding keys are masked, and positions continue from the row's last real
token. (Bidirectional models attend causally among the new tokens and fully to the prompt.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from pokevla.errors import UsageError
from pokevla.model.seeding import seed_for
from pokevla.model.sequence import assemble, splice_layout, take_rows
from pokevla.model.vlm import PokeVLM, check_text


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    """Divides the logits; 0 takes the most likely token (greedy)."""
    top_p: float = 1.0
    """Draw from the smallest set of tokens whose probabilities sum to at least this (nucleus sampling, arXiv
    1904.09751)."""
    seed: int = 0
    """Seed of the draws. The draws of row r follow from this and the row's entry of `rows`."""

    def __post_init__(self) -> None:
        """Raises UsageError for values out of range."""
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature is {self.temperature}.", "Give 0 for greedy decoding, or a positive number.")
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top_p is {self.top_p}.", "Give a share above 0 and at most 1.")


GREEDY = Sampling()


class Stop(Protocol):
    """Decides whether a row is finished."""

    def __call__(self, tokens: list[int]) -> bool:
        """Whether the row with these new tokens ends here; the last token is kept."""
        ...


@dataclass(frozen=True)
class StopStrings:
    """A `Stop` that ends a row as soon as its text contains one of `strings`."""

    tokenizer: Any
    strings: tuple[str, ...]

    def __call__(self, tokens: list[int]) -> bool:
        """Whether the decoded tokens contain a stop string."""
        text = self.tokenizer.decode(tokens)
        return any(string in text for string in self.strings)


@torch.no_grad()
def generate(
    model: PokeVLM,
    pixel_values: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    sampling: Sampling = GREEDY,
    rows: Sequence[int] | None = None,
    stop: Stop | None = None,
) -> Tensor:
    """Continue right-padded prompts.

    Args:
        pixel_values: (B, V, 3, S, S) in [0, 1].
        input_ids, attention_mask: (B, T), right padded.
        stop_ids: tokens that end a row; the first one fills rows that have ended.
        rows: one number per row, such as the index of the question in its dataset; default 0 ... B - 1. Draws are a
            pure function of (seed, number, step), so a row's text does not depend on the other rows of its batch.
        stop: further condition that ends a row, read after each token.

    Returns:
        (B, <= max_new_tokens) int64 with the stop tokens.

    Raises:
        UsageError: shapes are wrong, `stop_ids` is empty, or `rows` has another length.
    """
    batch = input_ids.shape[0]
    numbers = range(batch) if rows is None else rows
    if not stop_ids or len(numbers) != batch:
        raise UsageError(
            f"generate got {len(stop_ids)} stop tokens, and {len(numbers)} row numbers for {batch} rows.",
            "Give at least one stop token, and one number per row.",
        )
    if max_new_tokens <= 0:
        return input_ids.new_empty((batch, 0))
    logits, cache, visible = _prefill(model, pixel_values, input_ids, attention_mask)
    lengths = visible.sum(dim=1, keepdim=True)  # (B, 1)
    draws = uniform_draws(sampling.seed, numbers, max_new_tokens).to(logits.device)
    ends = torch.tensor(list(stop_ids), device=logits.device)
    finished = torch.zeros_like(lengths, dtype=torch.bool)
    tokens: list[Tensor] = []
    for step in range(max_new_tokens):
        token = next_tokens(logits, sampling, draws[:, step]).masked_fill(finished, int(stop_ids[0]))
        tokens.append(token)
        finished = finished | torch.isin(token, ends)
        if stop is not None:
            finished = finished | _stopped(tokens, stop).to(finished.device)
        if step + 1 == max_new_tokens or bool(finished.all()):
            break
        visible = torch.cat([visible, torch.ones_like(finished)], dim=1)
        states = model.language_model.model(
            input_ids=token,
            attention_mask=model.mask_by_layer_type(visible[:, None, None, :]),
            position_ids=lengths + step,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        logits = model.language_model.lm_head(states[:, -1])
    return torch.cat(tokens, dim=1)


def _prefill(
    model: PokeVLM, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor
) -> tuple[Tensor, DynamicCache, Tensor]:
    """Run the prompts: logits after each row's last token (B, vocab), the cache, and which cached keys are real."""
    vision = model.encode_images(pixel_values)
    check_text(input_ids, attention_mask, vision.shape[0])
    layout = splice_layout(attention_mask, vision.shape[1], 0)
    text = model.language_model.get_input_embeddings()(input_ids)
    cache = DynamicCache(config=model.language_model.config)
    states = model.language_model.model(
        inputs_embeds=assemble(text, vision, None, layout),
        attention_mask=model.mask_by_layer_type(model.mask_of(layout)),
        position_ids=layout.position_ids,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    last = take_rows(states, layout.valid.sum(dim=1, keepdim=True) - 1)[:, 0]
    return model.language_model.lm_head(last), cache, layout.valid


def _stopped(tokens: Sequence[Tensor], stop: Stop) -> Tensor:
    """(B, 1) bool: what `stop` says about each row's tokens so far."""
    return torch.tensor([[stop(row)] for row in torch.cat(list(tokens), dim=1).tolist()])


def next_tokens(logits: Tensor, sampling: Sampling, draws: Tensor) -> Tensor:
    """Choose one token per row: logits (B, vocab), draws (B,) in [0, 1) -> (B, 1) int64.

    Sampling inverts the cumulative distribution of the tokens, from the most likely one on.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    ordered, index = nucleus(logits.float() / sampling.temperature, sampling.top_p).sort(
        dim=-1, descending=True, stable=True
    )
    cumulative = ordered.softmax(dim=-1).cumsum(dim=-1)
    # Scaled by the last value, which rounding may leave below 1: so no draw lies beyond the last possible token.
    place = (cumulative <= draws[:, None] * cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    possible = ordered.isfinite().sum(dim=-1, keepdim=True)
    return index.gather(-1, torch.minimum(place, possible - 1))


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Set the logits (B, vocab) outside the smallest set with probability `top_p` to -inf. The most likely token
    always stays."""
    if top_p == 1.0:
        return logits
    ordered, index = logits.sort(dim=-1)
    removed = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
    removed[:, -1] = False
    return logits.masked_fill(removed.scatter(-1, index, removed), -torch.inf)


def uniform_draws(seed: int, rows: Sequence[int], steps: int) -> Tensor:
    """(len(rows), steps) numbers in [0, 1), each row a pure function of `seed` and its number."""
    generators = [torch.Generator().manual_seed(seed_for(seed, row)) for row in rows]
    return torch.stack([torch.rand(steps, generator=generator) for generator in generators])
