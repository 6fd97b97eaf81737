"""The text of every example: Qwen's ChatML, the same for training, evaluation and the policy.

One setting controls the system block in both stages (Prismatic dropped it in VLM training and kept it for actions).
Image embeddings are spliced in by the model after the first token, `<|im_start|>`, so no image token appears here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from pokevla.data.batch import IGNORED_LABEL, pad_texts
from pokevla.errors import DataError

START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
"""Ends each turn. The model emits it after its answer, so generation stops at its id."""
INSTRUCTION_TEMPLATE = "What action should the robot take to {instruction}?"
"""OpenVLA's question (prismatic/vla/datasets). The instruction is inserted in lower case."""


class Example(NamedTuple):
    """A training example. The loss is computed on `completion` only."""

    prompt: str
    completion: str


class EncodedExample(NamedTuple):
    """Token ids of prompt and completion, and labels of the same length with -100 on the prompt."""

    ids: list[int]
    labels: list[int]


def chat_prompt(user_text: str, system: str | None) -> str:
    """ChatML up to and including the header of the assistant's turn. `system=None` omits the system block."""
    head = f"{START_OF_TURN}system\n{system}{END_OF_TURN}\n" if system is not None else ""
    return f"{head}{START_OF_TURN}user\n{user_text}{END_OF_TURN}\n{START_OF_TURN}assistant\n"


def vla_prompt(instruction: str, system: str | None) -> str:
    """Prompt of the policy for one instruction. It ends with the assistant's header; the action queries follow."""
    return chat_prompt(INSTRUCTION_TEMPLATE.format(instruction=instruction.lower()), system)


def vlm_prompt(question: str, system: str | None) -> str:
    """Prompt for one question about an image."""
    return chat_prompt(question, system)


def vlm_example(question: str, answer: str, system: str | None) -> Example:
    """A training example of one question. The completion, and so the loss, includes the final `<|im_end|>`."""
    return Example(vlm_prompt(question, system), answer + END_OF_TURN)


def vlm_conversation(
    question: str, answer: str, further_turns: Sequence[tuple[str, str]], system: str | None
) -> list[Example]:
    """A training example of each turn of a conversation. Their texts follow each other; each completion has a loss.

    The line break between turns belongs to the next prompt, so that an answer ends where generation stops. Prismatic
    trains on it too (Stanford-ILIAD/openvla-mini, prismatic/models/backbones/llm/prompting/qwen_prompter.py).
    """
    further = [Example("\n" + chat_prompt(asked, None), said + END_OF_TURN) for asked, said in further_turns]
    return [vlm_example(question, answer, system), *further]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text. Special tokens written in the text are recognised; none are added."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def end_of_turn_id(tokenizer: Any) -> int:
    """Id at which generation stops. Raises DataError if `<|im_end|>` is not a single token of the tokenizer."""
    ids = encode_text(tokenizer, END_OF_TURN)
    if len(ids) != 1:
        raise DataError(f"the tokenizer splits {END_OF_TURN} into {len(ids)} tokens.", "Use a Qwen2 tokenizer.")
    return ids[0]


def pad_token_id(tokenizer: Any) -> int:
    """Id of the padding token. Raises DataError if the tokenizer has none."""
    if tokenizer.pad_token_id is None:
        raise DataError("the tokenizer has no padding token.", "Use a Qwen2 tokenizer (<|endoftext|>).")
    return int(tokenizer.pad_token_id)


def encode_example(tokenizer: Any, example: Example, max_tokens: int) -> EncodedExample:
    """Ids and labels of an example, truncated to `max_tokens`.

    Prompt and completion are tokenised separately, so the prompt's ids are the same as at inference.
    """
    return encode_conversation(tokenizer, [example], max_tokens)


def encode_conversation(tokenizer: Any, turns: Sequence[Example], max_tokens: int) -> EncodedExample:
    """Ids and labels of the turns of a conversation (`vlm_conversation`), truncated to `max_tokens` together."""
    ids: list[int] = []
    labels: list[int] = []
    for turn in turns:
        prompt, completion = encode_text(tokenizer, turn.prompt), encode_text(tokenizer, turn.completion)
        ids += prompt + completion
        labels += [IGNORED_LABEL] * len(prompt) + completion
    return EncodedExample(ids[:max_tokens], labels[:max_tokens])


def encode_prompts(tokenizer: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Right-padded ids (B,T) int64 and mask (B,T) bool of several prompts, for inference."""
    return pad_texts([encode_text(tokenizer, prompt) for prompt in prompts], pad_token_id(tokenizer))
