"""An exported model as a policy: images, proprio and an instruction in, a chunk of raw actions out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pokevla.data.prompts import encode_prompts, vla_prompt
from pokevla.data.statistics import Statistics
from pokevla.data.transforms import test_time_images
from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.reading import KEY, read_embodiment
from pokevla.errors import CheckpointError, UsageError
from pokevla.model.building import build_vla
from pokevla.model.presets import config_from_dict
from pokevla.model.tokenizer import load_tokenizer
from pokevla.model.vla import PokeVLA
from pokevla.weights.export import load_exported


@dataclass(frozen=True)
class Inputs:
    """The model's inputs for a batch of observations, on its device."""

    pixel_values: torch.Tensor  # (N, V, 3, S, S) float32 in [0, 1]
    input_ids: torch.Tensor  # (N, T)
    attention_mask: torch.Tensor  # (N, T)
    proprio: torch.Tensor  # (N, P) normalised


@dataclass(frozen=True)
class Policy:
    """A PokeVLA with everything it needs to act. `blank` replaces every image with zeros, as a baseline without
    vision."""

    model: PokeVLA
    tokenizer: Any
    statistics: Statistics
    embodiment: Embodiment
    image_size: int
    crop_area: float
    system_prompt: str | None
    blank: bool = False

    @classmethod
    def from_pretrained(cls, folder: Path, device: str | None = None) -> Policy:
        """Load an exported model, or the export of a post-training run directory.

        With `device` None, uses a GPU if available. Raises CheckpointError if there is no exported PokeVLA.
        """
        model, config, tokenizer_folder, statistics = load_exported(folder)
        if not isinstance(model, PokeVLA) or statistics is None:
            raise CheckpointError(f"{folder} is not a policy: it holds a PokeVLM.", "Name a post-training run.")
        return cls._assemble(model, config, tokenizer_folder, statistics, device)

    @classmethod
    def untrained(cls, folder: Path, seed: int, device: str | None = None) -> Policy:
        """The model and statistics of `folder`, with random weights from `seed`. Raises the errors of
        `from_pretrained`."""
        trained, config, tokenizer_folder, statistics = load_exported(folder)
        if not isinstance(trained, PokeVLA) or statistics is None:
            raise CheckpointError(f"{folder} is not a policy: it holds a PokeVLM.", "Name a post-training run.")
        model = build_vla(config_from_dict(config["model"]), seed=seed)
        return cls._assemble(model, config, tokenizer_folder, statistics, device)

    @classmethod
    def _assemble(
        cls, model: PokeVLA, config: dict[str, Any], tokenizer_folder: Path, statistics: Statistics, device: str | None
    ) -> Policy:
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(
            model=model.to(chosen).eval(),
            tokenizer=load_tokenizer(tokenizer_folder),
            statistics=statistics,
            embodiment=read_embodiment(config.get(KEY), tokenizer_folder.parent),
            image_size=config["image_size"],
            crop_area=config["crop_area"],
            system_prompt=config["system_prompt"],
            blank=config.get("blank_images", False),  # trained on blank images, so evaluated on blank images
        )

    @property
    def needs_images(self) -> bool:
        """False for a blanked policy, which needs no rendering."""
        return not self.blank

    @property
    def chunk_length(self) -> int:
        """Number of actions per query (K)."""
        return self.model.config.action_head.chunk_length

    def blanked(self) -> Policy:
        """The same weights with every image zeroed."""
        return dataclasses.replace(self, blank=True)

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
    ) -> np.ndarray:
        """See `ActingPolicy.act`; `steps` is not used.

        Raises:
            UsageError: images or proprio do not have the shape of the embodiment.
            ValueError: images are required but None.
        """
        with torch.inference_mode():
            inputs = self.prepare(images, proprio, instructions)
            output = self.model(
                inputs.pixel_values, inputs.input_ids, inputs.attention_mask, inputs.proprio, with_geometry=False
            )
        return self.statistics.denormalise_actions(output.actions.float().cpu().numpy())

    def prepare(self, images: np.ndarray | None, proprio: np.ndarray, instructions: Sequence[str]) -> Inputs:
        """Images (N, V, H, W, 3) uint8 (None if blank), proprio (N, P) raw -> the model's inputs. Uses the test-time
        crop, resize and normalisation of `pokevla.data`. Raises the errors of `act`."""
        self._check(images, proprio)
        device = self.model.seg_token.device
        pixels = self._pixels(images, len(instructions))
        ids, mask = encode_prompts(self.tokenizer, [vla_prompt(text, self.system_prompt) for text in instructions])
        return Inputs(
            pixel_values=torch.from_numpy(pixels).to(device),
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            proprio=torch.from_numpy(self.statistics.normalise_proprio(proprio)).to(device),
        )

    def _check(self, images: np.ndarray | None, proprio: np.ndarray) -> None:
        robot = self.embodiment
        if images is not None and not self.blank and (images.ndim != 5 or images.shape[1] != robot.num_views):
            raise UsageError(
                f"images has shape {images.shape}; this policy ({robot.name}) takes (N, {robot.num_views}, H, W, 3).",
                f"Give the views {', '.join(robot.views)}, in this order.",
            )
        if proprio.ndim != 2 or proprio.shape[1] != robot.proprio_width:
            fields = ", ".join(f"{field.name} ({field.size}, {field.unit})" for field in robot.proprio)
            raise UsageError(
                f"proprio has shape {proprio.shape}; this policy ({robot.name}) takes (N, {robot.proprio_width}).",
                f"Give the fields {fields}, in this order.",
            )

    def _pixels(self, images: np.ndarray | None, count: int) -> np.ndarray:
        views = self.embodiment.num_views
        if self.blank:
            return np.zeros((count, views, 3, self.image_size, self.image_size), np.float32)
        if images is None:
            raise ValueError("this policy needs images")
        return test_time_images(images, self.image_size, self.crop_area)
