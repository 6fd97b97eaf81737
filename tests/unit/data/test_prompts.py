from __future__ import annotations

from typing import Any

import pytest

from pokevla.data.prompts import (
    encode_conversation,
    encode_example,
    encode_prompts,
    encode_text,
    end_of_turn_id,
    vla_prompt,
    vlm_conversation,
    vlm_example,
    vlm_prompt,
)
from pokevla.errors import DataError


def test_vla_prompt_is_chatml_in_lower_case_up_to_the_answer() -> None:
    assert vla_prompt("Pick up the MILK", None) == (
        "<|im_start|>user\nWhat action should the robot take to pick up the milk?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_system_block_stands_first_in_both_stages() -> None:
    head = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    assert vla_prompt("go", "Be brief.").startswith(head)
    assert vlm_prompt("go?", "Be brief.").startswith(head)


def test_only_the_answer_and_its_end_are_trained(tokenizer: Any) -> None:
    example = vlm_example("Where?", "[(0.5, 0.5)]", None)
    encoded = encode_example(tokenizer, example, 1000)
    prompt = encode_text(tokenizer, example.prompt)
    assert encoded.ids[: len(prompt)] == prompt
    assert set(encoded.labels[: len(prompt)]) == {-100}
    assert encoded.labels[len(prompt) :] == encoded.ids[len(prompt) :]
    assert encoded.labels[-1] == end_of_turn_id(tokenizer)


def test_long_examples_are_cut_at_the_end(tokenizer: Any) -> None:
    encoded = encode_example(tokenizer, vlm_example("Where?", "there", None), 10)
    assert len(encoded.ids) == len(encoded.labels) == 10


def test_prompts_are_padded_on_the_right(tokenizer: Any) -> None:
    ids, mask = encode_prompts(tokenizer, ["ab", "abcd"])
    assert ids.shape == (2, 4)
    assert mask.tolist() == [[True, True, False, False], [True] * 4]
    assert ids[0, 2:].tolist() == [0, 0]


def test_a_tokenizer_without_the_end_token_is_refused() -> None:
    def cut(text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [1] * len(text)}

    with pytest.raises(DataError, match="Qwen2"):
        end_of_turn_id(cut)


def test_all_turns_of_a_conversation_follow_each_other_and_only_their_answers_are_trained(tokenizer: Any) -> None:
    turns = vlm_conversation("Who?", "Ann", [("Where?", "here"), ("When?", "now")], "Be brief.")
    assert "".join(turn.prompt + turn.completion for turn in turns) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nAnn<|im_end|>\n"
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\nhere<|im_end|>\n"
        "<|im_start|>user\nWhen?<|im_end|>\n<|im_start|>assistant\nnow<|im_end|>"
    )
    encoded = encode_conversation(tokenizer, turns, 1000)
    trained = [each for each in encoded.labels if each != -100]
    assert trained == [id_ for turn in turns for id_ in encode_text(tokenizer, turn.completion)]
    assert all(label in (-100, id_) for id_, label in zip(encoded.ids, encoded.labels, strict=True))
    cut = encode_conversation(tokenizer, turns, 100)
    assert (cut.ids, cut.labels) == (encoded.ids[:100], encoded.labels[:100])


def test_a_conversation_of_one_turn_is_the_example_of_its_question(tokenizer: Any) -> None:
    one = encode_conversation(tokenizer, vlm_conversation("Who?", "Ann", [], None), 1000)
    assert one == encode_example(tokenizer, vlm_example("Who?", "Ann", None), 1000)
