"""Tokenizers of the ChatML family (Qwen2, Qwen3, SmolLM2) from a folder."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pokevla.errors import CheckpointError

MINI_TOKENIZER = Path(__file__).parent / "mini"


def load_tokenizer(folder: Path | str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer in `folder`; None loads the small one of the presets tiny and mini.

    Never accesses the network. The pad token is `<|endoftext|>`; padding is on the right.

    Raises:
        CheckpointError: the folder holds no tokenizer, or one without ChatML's tokens.
    """
    path = MINI_TOKENIZER if folder is None else Path(folder)
    if not (path / "tokenizer.json").is_file() and not (path / "vocab.json").is_file():
        raise CheckpointError(
            f"{path}: no tokenizer here (neither tokenizer.json nor vocab.json).",
            "Give the folder of a Qwen2.5 tokenizer, for example a local copy of Qwen/Qwen2.5-0.5B.",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, padding_side="right")
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: not a readable tokenizer ({error}).", "Copy it again.") from error
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        if tokenizer.convert_tokens_to_ids(token) is None:
            raise CheckpointError(
                f"{path}: the tokenizer lacks {token}.", "Take one that knows ChatML, such as Qwen2.5's."
            )
    return tokenizer
