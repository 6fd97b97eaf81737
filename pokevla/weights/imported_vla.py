"""Reads the model of an imported OpenVLA-OFT or VLA-Adapter, one tensor at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pokevla.errors import CheckpointError, UsageError
from pokevla.model.building import WEIGHTS_NAME
from pokevla.model.published.config import PublishedConfig
from pokevla.model.published.vla import PublishedVLA
from pokevla.runs.directory import EXPORT_CONFIG
from pokevla.weights.export_files import read_export_config

IMPORT_AGAIN = "Import the checkpoint again."


def read_published_config(folder: Path) -> tuple[PublishedConfig, dict[str, Any]]:
    """Sizes and quirks of the model, and the whole `config.json`. CheckpointError if it is damaged."""
    content = read_export_config(folder)
    try:
        return PublishedConfig.from_dict(content.get("model")), content
    except UsageError as error:
        raise CheckpointError(f"{folder / EXPORT_CONFIG}: {error.message}", IMPORT_AGAIN) from error


def load_published(folder: Path, config: PublishedConfig, device: str, dtype: torch.dtype | None) -> PublishedVLA:
    """Build the model without memory and read its weights one by one to their device: memory of the model once.

    Raises:
        CheckpointError: names or shapes differ from the configuration's; names the first.
    """
    with torch.device("meta"):
        model = PublishedVLA(config)
    tied = config.vlm.language_model.tie_embeddings
    wanted = {
        name: value for name, value in model.state_dict().items() if not (tied and name.endswith("lm_head.weight"))
    }
    path = folder / WEIGHTS_NAME
    try:
        with safe_open(path, framework="pt") as stored:
            _compare(path, {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}, wanted)  # noqa: SIM118
            if dtype is None:
                embedding = stored.get_slice("vlm.language_model.model.embed_tokens.weight")[:1]
                dtype = torch.bfloat16 if torch.device(device).type == "cuda" else embedding.dtype
            for name in wanted:
                owner, _, last = name.rpartition(".")
                value = torch.nn.Parameter(stored.get_tensor(name).to(device, dtype), requires_grad=False)
                setattr(model.get_submodule(owner), last, value)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}).", IMPORT_AGAIN) from error
    if tied:
        model.vlm.language_model.tie_weights()
    model.set_normalisation(device)
    return model.eval()


def _compare(path: Path, found: dict[str, tuple[int, ...]], wanted: dict[str, torch.Tensor]) -> None:
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{path}: {len(missing)} tensors missing (first: {missing[:1]}), {len(unknown)} unknown (first: "
            f"{unknown[:1]}).",
            IMPORT_AGAIN,
        )
    wrong = [name for name in wanted if tuple(wanted[name].shape) != found[name]]
    if wrong:
        raise CheckpointError(
            f"{path}: {wrong[0]} has shape {found[wrong[0]]}, the model expects {tuple(wanted[wrong[0]].shape)}.",
            IMPORT_AGAIN,
        )
