from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from pokevla.model.tokenizers.loading import MINI_TOKENIZER, load_tokenizer


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2 with random weights and the tokenizer of the presets."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=1024, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, bos_token_id=None, eos_token_id=load_tokenizer().convert_tokens_to_ids("<|im_end|>"),
    ))  # fmt: skip
    model.save_pretrained(folder)
    for path in MINI_TOKENIZER.iterdir():
        if path.suffix in (".json", ".txt"):
            shutil.copy(path, folder / path.name)
    return folder
