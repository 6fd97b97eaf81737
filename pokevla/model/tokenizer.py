"""Qwen2 tokenizers from a folder."""

from __future__ import annotations

from pathlib import Path

from transformers import Qwen2Tokenizer

from pokevla.errors import CheckpointError

MINI_TOKENIZER = Path(__file__).parent / "tokenizers" / "mini"


def load_tokenizer(folder: Path | str | None = None) -> Qwen2Tokenizer:
    """Load the Qwen2 tokenizer in `folder`; None gives the small one of the presets tiny and mini.

    Never asks the network. The pad token is `<|endoftext|>`, padding goes to the right.

    Raises:
        CheckpointError: the folder holds no Qwen2 tokenizer.
    """
    path = MINI_TOKENIZER if folder is None else Path(folder)
    if not (path / "tokenizer.json").is_file() and not (path / "vocab.json").is_file():
        raise CheckpointError(
            f"{path}: no tokenizer here (neither tokenizer.json nor vocab.json).",
            "Give the folder of a Qwen2.5 tokenizer, for example a local copy of Qwen/Qwen2.5-0.5B.",
        )
    try:
        tokenizer = Qwen2Tokenizer.from_pretrained(path, local_files_only=True, padding_side="right")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a readable Qwen2 tokenizer ({error}).", "Copy it again.") from error
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        if tokenizer.convert_tokens_to_ids(token) is None:
            raise CheckpointError(f"{path}: the tokenizer lacks {token}.", "Take one of the Qwen2 family.")
    return tokenizer
