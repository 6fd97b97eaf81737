"""Prompts of OpenVLA-OFT and VLA-Adapter as token ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.data.published.prompts import (
    ADAPTER_PROMPT,
    LLAMA_EMPTY,
    OFT_PROMPT,
    PromptForm,
    encode_instruction,
    encode_instructions,
    load_published_tokenizer,
)
from pokevla.errors import CheckpointError, UsageError
from tests.published_checkpoints import tokenizer_of


def load(folder: Path, kind: str):
    tokenizer_of(kind).save(str(folder / "tokenizer.json"))
    return load_published_tokenizer(folder)


def test_llamas_prompt_begins_with_its_start_and_ends_in_the_empty_token(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, "openvla-oft")
    ids = encode_instruction(tokenizer, OFT_PROMPT, "Pick up the MUG", 100)
    assert ids[0] == 1
    assert ids[-1] == LLAMA_EMPTY
    assert tokenizer.decode(ids[1:-1]) == "In: What action should the robot take to pick up the mug?\nOut:"


def test_an_empty_token_that_is_there_is_not_repeated(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, "openvla-oft")
    last = tokenizer(".", add_special_tokens=False)["input_ids"][-1]
    form = PromptForm("{instruction}.", first_id=None, last_id=last)
    assert encode_instruction(tokenizer, form, "go", 100) == tokenizer("go.", add_special_tokens=False)["input_ids"]


def test_qwens_prompt_is_the_whole_chat_up_to_the_answer(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, "vla-adapter")
    ids = encode_instruction(tokenizer, ADAPTER_PROMPT, "Open the drawer", 300)
    starts = [place for place, one in enumerate(ids) if one == tokenizer.convert_tokens_to_ids("<|im_start|>")]
    assert starts[0] == 0
    assert len(starts) == 3
    assert tokenizer.decode(ids) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nWhat action should the robot take to open the drawer?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_rows_are_padded_on_the_right_and_too_long_ones_refused(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, "openvla-oft")
    ids, mask = encode_instructions(tokenizer, OFT_PROMPT, ["go", "go home"], 100)
    assert ids.shape == mask.shape
    assert mask.sum(dim=1).tolist() == [ids.shape[1] - 5, ids.shape[1]]
    with pytest.raises(UsageError, match=r"a prompt of 5\d tokens; this model has room for 40 beside"):
        encode_instructions(tokenizer, OFT_PROMPT, ["go"], 40)


def test_a_damaged_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer.json is missing"):
        load_published_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 1}')
    with pytest.raises(CheckpointError, match=r"not a readable tokenizer"):
        load_published_tokenizer(tmp_path)
