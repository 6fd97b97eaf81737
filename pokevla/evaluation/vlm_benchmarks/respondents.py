"""Models that answer questions about images: our PokeVLMs, exported or imported, and those of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from pokevla.errors import CheckpointError, command_line
from pokevla.evaluation.vlm.ask import load_respondent, reply
from pokevla.evaluation.vlm_benchmarks.judging import Reply
from pokevla.files.foreign.transformers_models import IMAGE_TEXT, load_transformers_model
from pokevla.files.texts import read_json_object

CONFIG = "config.json"


class Respondent(Protocol):
    """A model that answers questions, greedily."""

    kind: str
    """What it is, for the summary."""
    labels: list[str]
    """What a reader of the scores has to know about it."""

    def answer(self, images: Sequence[Image.Image], prompts: Sequence[str], max_new_tokens: int) -> list[Reply]:
        """One reply to each prompt about its RGB image."""
        ...


def open_respondent(model: Path) -> Respondent:
    """The model in a folder: a run, an exported or imported PokeVLM, or a model of transformers.

    Raises:
        CheckpointError: it is none of them, or is damaged.
    """
    if not model.is_dir():
        raise CheckpointError(f"{model} is not a folder.", "Name a run, an exported model or a local copy.")
    content = read_json_object(model / CONFIG, kind=CheckpointError) if (model / CONFIG).is_file() else {}
    if "kind" in content or "model_type" not in content:
        return PokeVLMRespondent(model)
    if content["model_type"] in ("prismatic", "openvla"):
        raise CheckpointError(
            f"{model} is a published Prismatic VLM, which needs code of its own in transformers.",
            f"Import it first: {command_line('model', 'import', 'prismatic', model)} OUT",
        )
    return TransformersRespondent(model)


class PokeVLMRespondent:
    """A PokeVLM of ours. Its input is the whole image, resized as in its training, so that coordinates stay valid."""

    kind = "PokeVLM"

    def __init__(self, model: Path) -> None:
        """Raises CheckpointError if there is no PokeVLM in the folder."""
        self.labels: list[str] = []
        self._respondent = load_respondent(model)

    def answer(self, images: Sequence[Image.Image], prompts: Sequence[str], max_new_tokens: int) -> list[Reply]:
        """One reply to each prompt about its RGB image."""
        return [Reply(text, not ended) for text, ended in reply(self._respondent, images, prompts, max_new_tokens)]


class TransformersRespondent:
    """Any image-text-to-text model of transformers in a local folder, with its own processor and chat template.

    Only safetensors are read, and no code from the folder is run. Penalties in the model's generation_config.json stay
    in force; sampling does not.
    """

    def __init__(self, model: Path) -> None:
        """Raises CheckpointError if transformers cannot load it."""
        self._model, self._processor = load_transformers_model(model, IMAGE_TEXT)
        self._tokenizer: Any = getattr(self._processor, "tokenizer", None)
        if self._tokenizer is None:
            raise CheckpointError(f"{model} has no tokenizer in its processor.", "Copy the whole model.")
        self._tokenizer.padding_side = "left"  # new tokens directly follow the prompt in every row
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self.kind = type(self._model).__name__
        self.labels: list[str] = []
        if self._template() is None:
            self.labels.append("The model has no chat template: prompts are plain text after the mark for the image.")

    @torch.no_grad()
    def answer(self, images: Sequence[Image.Image], prompts: Sequence[str], max_new_tokens: int) -> list[Reply]:
        """One reply to each prompt about its RGB image."""
        inputs = self._inputs(images, prompts).to(self._model.device, self._model.dtype)
        length = inputs["input_ids"].shape[1]
        settings = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
        tokens = self._model.generate(
            **inputs, max_new_tokens=max_new_tokens, pad_token_id=self._tokenizer.pad_token_id, **settings
        )[:, length:]
        ends = self._ends()
        texts = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [
            Reply(text.strip(), len(row) >= max_new_tokens and not ends.intersection(row))
            for text, row in zip(texts, tokens.tolist(), strict=True)
        ]

    def _inputs(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Any:
        if self._template() is not None:
            chats = [
                [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": prompt}]}]
                for image, prompt in zip(images, prompts, strict=True)
            ]
            return self._processor.apply_chat_template(
                chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
                processor_kwargs={"padding": True},
            )  # fmt: skip
        mark = getattr(self._processor, "image_token", "")
        return self._processor(
            text=[f"{mark}{prompt}" for prompt in prompts],
            images=[[image] for image in images],
            padding=True,
            return_tensors="pt",
        )

    def _template(self) -> Any:
        return getattr(self._processor, "chat_template", None) or self._tokenizer.chat_template

    def _ends(self) -> set[int]:
        """Ids that end a reply."""
        ids = self._model.generation_config.eos_token_id
        ids = self._tokenizer.eos_token_id if ids is None else ids
        return set(ids) if isinstance(ids, list) else {ids}
