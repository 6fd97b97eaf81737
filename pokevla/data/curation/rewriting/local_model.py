"""A causal language model of transformers in a local folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash

from pokevla.files.foreign.transformers_models import CAUSAL, load_transformers_model

_HASHED = ("*.safetensors", "config.json", "generation_config.json", "tokenizer*.json", "vocab.json", "merges.txt",
           "chat_template.jinja")  # fmt: skip
_BLOCK = 1 << 22


class LocalModel:
    """Greedy, or sampled with draws that follow from the seed and the request. Only safetensors are read, and no code
    from the folder is run."""

    def __init__(self, folder: Path, temperature: float = 0.0, seed: int = 0, max_new_tokens: int = 256) -> None:
        """Raises CheckpointError: transformers cannot load the folder."""
        self._model, self._tokenizer = load_transformers_model(folder, CAUSAL)
        self._temperature, self._seed = temperature, seed
        self._max_new_tokens = max_new_tokens
        self._identity = {
            "name": folder.resolve().name,
            "files": _fingerprint(folder),
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "seed": seed if temperature else 0,
        }

    @property
    def identity(self) -> Mapping[str, Any]:
        """Name and fingerprint of the folder, and how tokens are chosen."""
        return self._identity

    def replies(self, requests: Sequence[str], system: str) -> list[str | None]:
        """One reply to each request. One at a time: padding would change the numbers of the others."""
        return [self._reply(request, system) for request in requests]

    @torch.no_grad()
    def _reply(self, request: str, system: str) -> str:
        ids = self._tokenizer(self._prompt(request, system), add_special_tokens=False, return_tensors="pt")
        inputs = {name: ids[name].to(self._model.device) for name in ("input_ids", "attention_mask")}
        sampled = self._temperature > 0
        chosen = {"temperature": self._temperature} if sampled else {"temperature": None, "top_p": None, "top_k": None}
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(xxhash.xxh3_64_intdigest(f"{self._seed}\0{request}".encode()) >> 1)
            tokens = self._model.generate(
                **inputs,
                max_new_tokens=self._max_new_tokens,
                do_sample=sampled,
                num_beams=1,
                pad_token_id=self._tokenizer.pad_token_id or self._tokenizer.eos_token_id,
                **chosen,
            )
        return self._tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def _prompt(self, request: str, system: str) -> str:
        if self._tokenizer.chat_template is None:
            return f"{system}\n\n{request}\n"
        turns = [{"role": "system", "content": system}, {"role": "user", "content": request}]
        return self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)


def _fingerprint(folder: Path) -> str:
    digest = xxhash.xxh3_128()
    for path in sorted({path for pattern in _HASHED for path in folder.glob(pattern)}):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()
