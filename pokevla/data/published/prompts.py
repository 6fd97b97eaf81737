"""The text of an instruction as OpenVLA-OFT and VLA-Adapter give it to their language models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedTokenizerFast

from pokevla.data.batch import pad_texts
from pokevla.data.prompts import INSTRUCTION_TEMPLATE, chat_prompt
from pokevla.errors import CheckpointError, UsageError

QWEN_SYSTEM_PROMPT = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
"""System block of VLA-Adapter's prompt (openvla_utils.py, get_vla_action), Qwen2.5's default."""
LLAMA_START = 1
"""`<s>`, with which Llama's tokenizer begins every text."""
LLAMA_EMPTY = 29871
"""Llama's token of a single space, which training had at the end of the prompt; appended where the text does not end in
it (modeling_prismatic.py 972 of OpenVLA-OFT)."""


@dataclass(frozen=True)
class PromptForm:
    """How an instruction becomes tokens."""

    template: str
    """With `{instruction}`, which is inserted in lower case."""
    first_id: int | None = None
    """Token before the text; None if the text begins by itself (Qwen)."""
    last_id: int | None = None
    """Token after the text if it is not there yet."""


OFT_PROMPT = PromptForm(f"In: {INSTRUCTION_TEMPLATE}\nOut:", LLAMA_START, LLAMA_EMPTY)
ADAPTER_PROMPT = PromptForm(chat_prompt(INSTRUCTION_TEMPLATE, QWEN_SYSTEM_PROMPT))


def load_published_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a checkpoint, exactly as its `tokenizer.json` says.

    transformers' own classes would rebuild parts of it, differently from version to version.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing.", "Copy it from the checkpoint, and import that again.")
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    except Exception as error:  # tokenizers raises plain Exception for a damaged file
        raise CheckpointError(f"{path} is not a readable tokenizer ({error}).", "Copy it again.") from error


def encode_instruction(
    tokenizer: PreTrainedTokenizerFast, form: PromptForm, instruction: str, max_tokens: int
) -> list[int]:
    """Token ids of the prompt.

    Raises:
        UsageError: more than `max_tokens`; says how many.
    """
    text = form.template.format(instruction=instruction.lower())
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if form.first_id is not None:
        ids = [form.first_id, *ids]
    if form.last_id is not None and ids[-1:] != [form.last_id]:
        ids.append(form.last_id)
    if len(ids) > max_tokens:
        raise UsageError(
            f"The instruction {instruction[:60]!r} makes a prompt of {len(ids)} tokens; this model has room for "
            f"{max_tokens} beside its images and actions.",
            "Shorten the instruction.",
        )
    return ids


def encode_instructions(
    tokenizer: PreTrainedTokenizerFast, form: PromptForm, instructions: Sequence[str], max_tokens: int
) -> tuple[Tensor, Tensor]:
    """Right-padded ids (N, T) int64 and mask (N, T) bool. Raises what `encode_instruction` raises."""
    rows = [encode_instruction(tokenizer, form, text, max_tokens) for text in instructions]
    return pad_texts(rows, 0)  # the padding is masked and moved to the end
