"""A published checkpoint of OpenVLA-OFT or VLA-Adapter as a policy, with the computation of its own evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from pokevla.data.published.images import ImagePath, published_pixels
from pokevla.data.published.normalisation import FILE as STATISTICS
from pokevla.data.published.normalisation import (
    PublishedStatistics,
    choose_statistics,
    read_published_statistics,
)
from pokevla.data.published.prompts import PromptForm, encode_instructions, load_published_tokenizer
from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.reading import KEY, read_embodiment
from pokevla.errors import CheckpointError, UsageError
from pokevla.model.presets import config_of
from pokevla.model.published.vla import PublishedVLA
from pokevla.policy.observations import check_observations
from pokevla.policy.placement import dtype_for
from pokevla.runs.directory import EXPORT_CONFIG
from pokevla.weights.export_files import refuse_damaged_export
from pokevla.weights.imported_vla import IMPORT_AGAIN, load_published, read_published_config


@dataclass(frozen=True)
class PublishedInputs:
    """The model's inputs for a batch of observations, on its device."""

    pixel_values: torch.Tensor  # (N, V, 3, S, S) float32 in [0, 1]
    input_ids: torch.Tensor  # (N, T)
    attention_mask: torch.Tensor  # (N, T)
    proprio: torch.Tensor  # (N, P) normalised


@dataclass(frozen=True)
class PublishedPolicy:
    """The model, and everything else that turns observations into actions. See `pokevla.policy.policy.Policy`."""

    kind: str
    """`openvla-oft` or `vla-adapter`."""
    model: PublishedVLA
    tokenizer: PreTrainedTokenizerFast
    all_statistics: Mapping[str, PublishedStatistics]
    """By name of their dataset."""
    embodiment: Embodiment
    prompt: PromptForm
    images: ImagePath = field(default_factory=ImagePath)
    chosen: str | None = None
    """The dataset whose statistics are used; None: the only one."""
    blank: bool = False

    @classmethod
    def from_pretrained(
        cls, folder: Path, device: str | None = None, dtype: torch.dtype | None = None
    ) -> PublishedPolicy:
        """Load what `pokevla model import openvla-oft|vla-adapter SRC FOLDER` has written.

        Args:
            folder: of the imported checkpoint.
            device: None: a GPU if available.
            dtype: number format of all weights. None: bf16 on a GPU, as in the published evaluations; on a CPU that of
                the checkpoint.

        Raises:
            CheckpointError: a file is missing or damaged, or does not fit the others.
            DataError: the statistics are those of another robot.
        """
        refuse_damaged_export(folder)
        config, content = read_published_config(folder)
        return cls._assemble(load_published(folder, config, _device(device), dtype), content, folder)

    @classmethod
    def untrained(
        cls, folder: Path, seed: int, device: str | None = None, dtype: torch.dtype | None = None
    ) -> PublishedPolicy:
        """The policy of an imported checkpoint with random weights from `seed`, on a CPU in fp32. Raises the errors of
        `from_pretrained`."""
        config, content = read_published_config(folder)
        chosen = _device(device)
        model = PublishedVLA(config, seed).to(chosen, dtype or dtype_for(chosen)).eval()
        model.set_normalisation()  # in fp32 again
        return cls._assemble(model, content, folder)

    @classmethod
    def _assemble(cls, model: PublishedVLA, content: Mapping[str, Any], folder: Path) -> PublishedPolicy:
        embodiment = read_embodiment(content.get(KEY), folder / EXPORT_CONFIG)
        try:
            prompt = config_of(PromptForm, content.get("prompt"), "prompt")
            images = config_of(ImagePath, content.get("images"), "images")
        except UsageError as error:
            raise CheckpointError(f"{folder / EXPORT_CONFIG}: {error.message}", IMPORT_AGAIN) from error
        return cls(
            kind=str(content["kind"]),
            model=model,
            tokenizer=load_published_tokenizer(folder / "tokenizer"),
            all_statistics=read_published_statistics(folder / STATISTICS, embodiment),
            embodiment=embodiment,
            prompt=prompt,
            images=images,
        )

    @property
    def needs_images(self) -> bool:
        """False for a blanked policy, which needs no rendering."""
        return not self.blank

    @property
    def chunk_length(self) -> int:
        """Number of actions per query (K)."""
        return self.model.config.action_head.chunk_length

    @property
    def statistics(self) -> PublishedStatistics:
        """The statistics in use.

        Raises:
            UsageError: the checkpoint has those of several datasets, and none was chosen.
        """
        if self.chosen is not None:
            return self.all_statistics[self.chosen]
        if len(self.all_statistics) > 1:
            raise UsageError(
                f"This checkpoint has statistics of several datasets: {', '.join(self.all_statistics)}.",
                "Choose those of a suite with `policy.for_suite(SUITE)`.",
            )
        return next(iter(self.all_statistics.values()))

    def for_suite(self, suite: str) -> PublishedPolicy:
        """The same policy with the statistics of a suite of tasks, or of any dataset by name. Raises UsageError if the
        checkpoint has none of it."""
        return dataclasses.replace(self, chosen=choose_statistics(self.all_statistics, suite).name)

    def with_plain_images(self) -> PublishedPolicy:
        """The same policy with our image path instead of the published one: no JPEG, one resampling."""
        plain = dataclasses.replace(self.images, jpeg=False, lanczos=False)
        return dataclasses.replace(self, images=plain)

    def blanked(self) -> PublishedPolicy:
        """The same weights with every image black."""
        return dataclasses.replace(self, blank=True)

    def act(
        self,
        images: np.ndarray | None,
        proprio: np.ndarray,
        instructions: Sequence[str],
        steps: Sequence[int] | None = None,
    ) -> np.ndarray:
        """See `ActingPolicy.act`; `steps` is not used. The actions are float64, as in the published evaluations.

        Raises:
            UsageError: images or proprio are not those of the embodiment, an instruction is too long, or no statistics
                were chosen where there are several.
            ValueError: images are required but None.
        """
        with torch.inference_mode():
            inputs = self.prepare(images, proprio, instructions)
            actions = self.model(inputs.pixel_values, inputs.input_ids, inputs.attention_mask, inputs.proprio)
        return self.statistics.denormalise_actions(actions.float().cpu().numpy())

    def prepare(self, images: np.ndarray | None, proprio: np.ndarray, instructions: Sequence[str]) -> PublishedInputs:
        """Images (N, V, H, W, 3) uint8 (None if blank), proprio (N, P) raw -> the model's inputs. Raises the errors of
        `act`."""
        check_observations(self.embodiment, None if self.blank else images, proprio, instructions)
        config = self.model.config
        ids, mask = encode_instructions(self.tokenizer, self.prompt, instructions, config.max_text_tokens)
        device = self.model.proprio_projector.get_parameter("0.weight").device
        return PublishedInputs(
            pixel_values=torch.from_numpy(self._pixels(images, len(instructions))).to(device),
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            proprio=torch.from_numpy(self.statistics.normalise_proprio(proprio)).to(device),
        )

    def _pixels(self, images: np.ndarray | None, count: int) -> np.ndarray:
        size = self.model.config.vlm.image_size
        if self.blank:
            return np.zeros((count, self.embodiment.num_views, 3, size, size), np.float32)
        if images is None:
            raise ValueError("this policy needs images")
        return published_pixels(images, size, self.images)


def _device(device: str | None) -> str:
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
