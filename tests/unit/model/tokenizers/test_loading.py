"""The small tokenizer: Qwen2's class, reproducible, single digits, lossless."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.errors import CheckpointError
from pokevla.model.presets import preset
from pokevla.model.tokenizers.build_mini import build
from pokevla.model.tokenizers.loading import MINI_TOKENIZER, load_tokenizer

TOKENIZER = load_tokenizer()


def test_script_rebuilds_the_stored_files_bit_by_bit(tmp_path: Path) -> None:
    build(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["merges.txt", "tokenizer_config.json", "vocab.json"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (MINI_TOKENIZER / name).read_bytes()


def test_ids_fit_the_small_presets_and_pad_is_endoftext() -> None:
    assert len(TOKENIZER) <= preset("mini").vlm.language_model.vocab_size
    assert TOKENIZER.pad_token == TOKENIZER.eos_token == "<|endoftext|>"
    assert type(TOKENIZER).__name__ == "Qwen2Tokenizer"


@pytest.mark.parametrize("number", ["0.123", "0.000", "0.999", "1.000"])
def test_numbers_are_single_digits(number: str) -> None:
    assert TOKENIZER.tokenize(f"({number}") == ["(", *number]


def test_chat_markers_are_single_tokens() -> None:
    text = "<|im_start|>user\nPoint to the milk.<|im_end|>\n<|im_start|>assistant\n"
    tokens = TOKENIZER.tokenize(text)
    assert tokens.count("<|im_start|>") == 2
    assert tokens.count("<|im_end|>") == 1


@given(st.text(max_size=40))
@settings(max_examples=30, deadline=None)
def test_any_text_comes_back(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids) == unicodedata.normalize("NFC", text)


def test_missing_or_broken_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer here"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a readable"):
        load_tokenizer(tmp_path)
