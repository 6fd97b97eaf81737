"""An exported model as a policy: images, proprio and an instruction in, a chunk of raw actions out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pokevla.data.images.transforms import image_filter_of, test_time_images
from pokevla.data.statistics import Statistics
from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.reading import KEY, read_embodiment
from pokevla.errors import CheckpointError
from pokevla.model.building import build_vla
from pokevla.model.presets import config_from_dict
from pokevla.model.tokenizers.loading import load_tokenizer
from pokevla.model.vla import PokeVLA, VLAOutput
from pokevla.policy.explanation.explanation import Explanation, explain
from pokevla.policy.instructions import EncodedInstructions, InstructionEncoder
from pokevla.policy.kinds import policy_class
from pokevla.policy.observations import check_observations
from pokevla.policy.placement import dtype_for, place_for_acting
from pokevla.weights.export import load_exported

if TYPE_CHECKING:
    from pokevla.teachers.teacher import Teacher


@dataclass(frozen=True)
class Inputs:
    """The model's inputs for a batch of observations, on its device."""

    pixel_values: torch.Tensor  # (N, V, 3, S, S) float32 in [0, 1]
    instructions: EncodedInstructions
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
    max_text_tokens: int | None = None
    """Longest prompt in tokens; None: as long as the language model has positions for."""
    image_filter: str = "bilinear"
    _encode: InstructionEncoder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        encoder = InstructionEncoder(self.model, self.tokenizer, self.system_prompt, self.max_text_tokens)
        object.__setattr__(self, "_encode", encoder)  # the dataclass is frozen

    @classmethod
    def from_pretrained(cls, folder: Path, device: str | None = None, dtype: torch.dtype | None = None) -> Policy:
        """Load an exported model, or the export of a post-training run directory.

        An imported checkpoint of another project gives the policy of its kind (`pokevla.parts.POLICIES`), which has the
        methods of this class except `explain`.

        Args:
            device: None: a GPU if available.
            dtype: number format of the VLM (`pokevla.policy.placement`); None: bf16 on a GPU, fp32 on a CPU.

        Raises:
            CheckpointError: there is no exported policy.
        """
        if (other := policy_class(folder)) is not cls:
            return other.from_pretrained(folder, device, dtype)
        model, config, tokenizer_folder, statistics = load_exported(folder)
        if not isinstance(model, PokeVLA) or statistics is None:
            raise CheckpointError(f"{folder} is not a policy: it holds a PokeVLM.", "Name a post-training run.")
        return cls._assemble(model, config, tokenizer_folder, statistics, device, dtype)

    @classmethod
    def untrained(cls, folder: Path, seed: int, device: str | None = None, dtype: torch.dtype | None = None) -> Policy:
        """The model and statistics of `folder`, with random weights from `seed`. Raises the errors of
        `from_pretrained`."""
        if (other := policy_class(folder)) is not cls:
            return other.untrained(folder, seed, device, dtype)
        trained, config, tokenizer_folder, statistics = load_exported(folder)
        if not isinstance(trained, PokeVLA) or statistics is None:
            raise CheckpointError(f"{folder} is not a policy: it holds a PokeVLM.", "Name a post-training run.")
        model = build_vla(config_from_dict(config["model"]), seed=seed)
        return cls._assemble(model, config, tokenizer_folder, statistics, device, dtype)

    @classmethod
    def _assemble(
        cls,
        model: PokeVLA,
        config: dict[str, Any],
        tokenizer_folder: Path,
        statistics: Statistics,
        device: str | None,
        dtype: torch.dtype | None,
    ) -> Policy:
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        place_for_acting(model, chosen, dtype or dtype_for(chosen))
        return cls(
            model=model.eval(),
            tokenizer=load_tokenizer(tokenizer_folder),
            statistics=statistics,
            embodiment=read_embodiment(config.get(KEY), tokenizer_folder.parent),
            image_size=config["image_size"],
            crop_area=config["crop_area"],
            system_prompt=config["system_prompt"],
            blank=config.get("blank_images", False),  # trained on blank images, so evaluated on blank images
            max_text_tokens=config.get("max_text_tokens"),  # absent in exports of earlier versions
            image_filter=image_filter_of(config),
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
        """See `ActingPolicy.act`; `steps` is not used. One forward pass of the model answers all N observations.

        Raises:
            UsageError: images or proprio are not those of the embodiment, or an instruction is too long.
            ValueError: images are required but None.
        """
        with torch.inference_mode():
            output = self.run(self.prepare(images, proprio, instructions))
        return self.statistics.denormalise_actions(output.actions.float().cpu().numpy())

    def explain(
        self,
        images: np.ndarray,
        proprio: np.ndarray,
        instructions: Sequence[str],
        sam: Teacher | torch.Tensor | None = None,
    ) -> Explanation:
        """What the policy looks at when it is asked for actions: attention over image patches, and masks.

        At size pocket an observation takes 50 MB, most of it the language model's weights by layer and head.

        Args:
            images: (N, V, H, W, 3) uint8.
            proprio: (N, P) raw.
            instructions: N of them.
            sam: for the masks: a SAM teacher, or its features (N, V, C, G, G) of the uncropped images.

        Raises:
            UsageError: as `act`; or the policy sees blank images, or its language model cannot be read.
        """
        return explain(self, images, proprio, instructions, sam)

    def prepare(self, images: np.ndarray | None, proprio: np.ndarray, instructions: Sequence[str]) -> Inputs:
        """Images (N, V, H, W, 3) uint8 (None if blank), proprio (N, P) raw -> the model's inputs. Uses the test-time
        crop, resize and normalisation of `pokevla.data`. Raises the errors of `act`."""
        check_observations(self.embodiment, None if self.blank else images, proprio, instructions)
        device = self.model.seg_token.device
        return Inputs(
            pixel_values=torch.from_numpy(self._pixels(images, len(instructions))).to(device),
            instructions=self._encode(instructions),
            proprio=torch.from_numpy(self.statistics.normalise_proprio(proprio)).to(device),
        )

    def run(self, inputs: Inputs, sam_features: torch.Tensor | None = None) -> VLAOutput:
        """One forward pass. With cropped SAM features (N, V, C, G, G) it decodes masks as well, for which
        `place_mask_parts` has to be called first."""
        encoded = inputs.instructions
        return self.model(
            inputs.pixel_values, encoded.input_ids, encoded.attention_mask, inputs.proprio, sam_features,
            with_geometry=False, text=encoded.text,
        )  # fmt: skip

    def _pixels(self, images: np.ndarray | None, count: int) -> np.ndarray:
        views = self.embodiment.num_views
        if self.blank:
            return np.zeros((count, views, 3, self.image_size, self.image_size), np.float32)
        if images is None:
            raise ValueError("this policy needs images")
        return test_time_images(images, self.image_size, self.crop_area, self.image_filter)
