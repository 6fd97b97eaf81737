"""Instructions are encoded once, and repeated ones change nothing."""

from __future__ import annotations

import pytest
import torch

from pokevla.errors import UsageError
from pokevla.policy import instructions as module
from pokevla.policy.instructions import InstructionEncoder
from pokevla.policy.policy import Policy


class CountingTokenizer:
    """Counts the texts that it is given."""

    def __init__(self, tokenizer) -> None:
        self.inner, self.texts = tokenizer, []
        self.pad_token_id = tokenizer.pad_token_id

    def __call__(self, text: str, **options):
        self.texts.append(text)
        return self.inner(text, **options)


def test_a_repeated_instruction_is_neither_tokenised_nor_embedded_again(policy: Policy) -> None:
    tokenizer = CountingTokenizer(policy.tokenizer)
    encode = InstructionEncoder(policy.model, tokenizer, None)
    first = encode(["push the plate", "go"])
    assert encode(["push the plate", "go"]) is first
    encode(["go"])  # another batch of a known instruction
    assert len(tokenizer.texts) == 2


def test_kept_texts_are_those_that_the_model_would_embed(policy: Policy) -> None:
    encoded = InstructionEncoder(policy.model, policy.tokenizer, "Be quick.")(["push the plate", "go"])
    with torch.no_grad():
        fresh = policy.model.embed_text(encoded.input_ids, encoded.attention_mask)
    assert encoded.input_ids.shape == encoded.attention_mask.shape
    assert encoded.attention_mask.sum(1)[0] > encoded.attention_mask.sum(1)[1]
    assert torch.equal(encoded.text.embeddings, fresh.embeddings)
    assert encoded.text.tail is not None
    assert torch.equal(encoded.text.tail[:, 0], policy.model.seg_token.expand(2, -1))
    assert torch.equal(encoded.text.layout.source, fresh.layout.source)


def test_only_so_many_instructions_are_kept(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_BATCHES", 2)
    monkeypatch.setattr(module, "KEPT_TEXTS", 1)
    tokenizer = CountingTokenizer(policy.tokenizer)
    encode = InstructionEncoder(policy.model, tokenizer, None)
    first = encode(["a"])
    encode(["b"])
    assert encode(["a"]) is first
    encode(["c"])  # b was asked for least recently
    assert encode(["a"]) is first
    encode(["b"])
    assert len(tokenizer.texts) == 4


def test_the_limit_is_that_of_training_where_it_is_known(policy: Policy) -> None:
    config = policy.model.config
    positions = config.vlm.language_model.max_positions
    assert InstructionEncoder(policy.model, policy.tokenizer, None).limit == positions - 2 * 4 - 1 - 4
    encode = InstructionEncoder(policy.model, policy.tokenizer, None, max_text_tokens=20)
    assert encode.limit == 20
    with pytest.raises(UsageError, match="tokens with its prompt; this policy takes at most 20"):
        encode(["pick up the salad dressing and place it in the basket"])
