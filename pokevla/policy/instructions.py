"""Instructions as the model reads them. A trial repeats its instruction at every query, so encoded ones are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pokevla.data.batch import pad_texts
from pokevla.data.prompts import encode_text, pad_token_id, vla_prompt
from pokevla.errors import UsageError
from pokevla.model.sequence import TextInputs
from pokevla.model.vla import PokeVLA
from pokevla.policy.recent import RecentResults

KEPT_TEXTS = 4096
"""Instructions whose token ids are kept."""
KEPT_BATCHES = 64
"""Batches of instructions whose embeddings are kept on the device: 0.1 MB for each row at size pocket in bf16."""


@dataclass(frozen=True)
class EncodedInstructions:
    """A batch of instructions on the device of the model."""

    input_ids: Tensor  # (N, T)
    attention_mask: Tensor  # (N, T)
    text: TextInputs  # their embeddings with SEG and the action queries, and the layout of the sequence


class InstructionEncoder:
    """Encodes instructions for one model, whose weights must not change any more."""

    def __init__(
        self, model: PokeVLA, tokenizer: Any, system_prompt: str | None, max_text_tokens: int | None = None
    ) -> None:
        """`max_text_tokens`: longest prompt of the training; None: as long as the language model has positions for."""
        self._model, self._tokenizer, self._system_prompt = model, tokenizer, system_prompt
        self._limit = max_text_tokens
        self._tokens: RecentResults[str, list[int]] = RecentResults(KEPT_TEXTS)
        self._batches: RecentResults[tuple[str, ...], EncodedInstructions] = RecentResults(KEPT_BATCHES)

    @property
    def limit(self) -> int:
        """Longest prompt in tokens."""
        config = self._model.config
        others = config.num_views * config.vlm.num_patches + config.action_head.num_queries
        others += config.seg_token + config.action_head.proprio_in_sequence
        fitting = config.vlm.language_model.max_positions - others
        return fitting if self._limit is None else min(fitting, self._limit)

    def __call__(self, instructions: Sequence[str]) -> EncodedInstructions:
        """Encode N instructions.

        Raises:
            UsageError: one is longer with its prompt than the model takes.
        """
        key = tuple(instructions)
        return self._batches.get(key, lambda: self._encode(key))

    def _encode(self, instructions: tuple[str, ...]) -> EncodedInstructions:
        texts = [self._tokens.get(text, lambda text=text: self._tokenise(text)) for text in instructions]
        device = self._model.seg_token.device
        ids, mask = (tensor.to(device) for tensor in pad_texts(texts, pad_token_id(self._tokenizer)))
        return EncodedInstructions(ids, mask, self._model.embed_text(ids, mask))

    def _tokenise(self, instruction: str) -> list[int]:
        tokens = encode_text(self._tokenizer, vla_prompt(instruction, self._system_prompt))
        if len(tokens) > self.limit:
            raise UsageError(
                f"The instruction {instruction[:40]!r}... has {len(tokens)} tokens with its prompt; this policy takes "
                f"at most {self.limit}.",
                "Give a shorter instruction.",
            )
        return tokens
