"""Models of transformers in a local folder that somebody else made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pokevla.errors import CheckpointError
from pokevla.files.texts import shorten

CAUSAL, IMAGE_TEXT = "causal language model", "image-text-to-text model"
ModelKind = Literal["causal language model", "image-text-to-text model"]


def load_transformers_model(folder: Path, kind: ModelKind) -> tuple[Any, Any]:
    """The model, in eval mode on the GPU if there is one, and its tokenizer (CAUSAL) or processor (IMAGE_TEXT).

    Only safetensors are read, and no code from the folder is run. On a CPU the weights become float32.

    Raises:
        CheckpointError: it is no folder, or transformers cannot load it.
    """
    import torch
    import transformers
    from safetensors import SafetensorError

    if not folder.is_dir():  # transformers would take it for a name of the Hugging Face Hub
        raise CheckpointError(f"{folder} is not a folder.", f"Give the folder of a {kind}.")
    if kind == CAUSAL:
        texts, model_class, files = transformers.AutoTokenizer, transformers.AutoModelForCausalLM, "tokenizer"
    else:
        texts, model_class, files = transformers.AutoProcessor, transformers.AutoModelForImageTextToText, "processor"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        reader: Any = texts.from_pretrained(folder, **options)
        model: Any = model_class.from_pretrained(
            folder, use_safetensors=True, dtype="auto" if device == "cuda" else torch.float32, **options
        )
    except (
        OSError, ValueError, KeyError, ImportError, AttributeError, TypeError, RuntimeError, SafetensorError,
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"{folder} cannot be loaded as a{'n' if kind == IMAGE_TEXT else ''} {kind} of transformers "
            f"({type(error).__name__}: {shorten(str(error).strip(), 200)}).",
            f"It needs a complete local copy with safetensors and {files} files; code in the folder is not run.",
        ) from error
    return model.to(device).eval(), reader
