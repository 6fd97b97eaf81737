"""The published models that recipes need: where they are, under which licence, and where they go.

Revisions, sizes and SHA-256 sums are those that others have published for these files; None where none is known. They
were not compared with the originals, because this was written without a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pokevla.errors import UsageError

VARIABLE = "POKEVLA_MODELS"
"""Environment variable with the directory that recipes look for models in."""
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published model."""

    name: str  # in the repository, and below the model's folder
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class PublishedModel:
    """A model that others have published. It has either a `repository` or a `url`."""

    name: str
    title: str
    licence: str
    folder: str  # below the models' directory; "." for the directory itself
    files: tuple[PublishedFile, ...]
    needed_for: str
    repository: str | None = None  # at the Hugging Face hub
    revision: str = "main"  # commit of the repository
    url: str | None = None  # folder of the files elsewhere
    note: str = ""

    @property
    def size_bytes(self) -> int | None:
        """Size of all files; None if that of one is not known."""
        sizes = [file.size_bytes for file in self.files if file.size_bytes is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    def address(self, file: PublishedFile | None = None, hub: str = HUB) -> str:
        """Web address of one file, or of the model."""
        if file is None:
            return f"{hub}/{self.repository}" if self.url is None else self.url
        if self.url is not None:
            return f"{self.url}/{file.name}"
        return f"{hub}/{self.repository}/resolve/{self.revision}/{file.name}"

    def target(self, root: Path, file: PublishedFile) -> Path:
        """Where a file goes if `root` is the models' directory."""
        return root / self.folder / file.name


MODELS: tuple[PublishedModel, ...] = (
    PublishedModel(
        name="qwen2.5-0.5b",
        title="Qwen2.5-0.5B, tokenizer of the language model",
        licence="Apache-2.0",
        folder="qwen2.5-0.5b",
        files=tuple(
            PublishedFile(name)
            for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
        ),
        needed_for="model.tokenizer of pretrain/paper and posttrain/*",
        repository="Qwen/Qwen2.5-0.5B",
        revision="060db6499f32faf8b98477b0a26969ef7d8b9987",
        note="Its weights are part of prismatic.",
    ),
    PublishedModel(
        name="prismatic",
        title="Prismatic VLM with Qwen2.5-0.5B, base model of pre-training",
        licence="see its page",
        folder="prism-qwen25-extra-dinosiglip-224px-0_5b",
        files=(PublishedFile("config.json"), PublishedFile("checkpoints/latest-checkpoint.pt")),
        needed_for="model.vlm of pretrain/paper, after an import",
        repository="Stanford-ILIAD/prism-qwen25-extra-dinosiglip-224px-0_5b",
        revision="5cfd2cc6da00c06e0be7abf35d43ec792d8e9498",
        note="Turn it into a folder that model.vlm reads with `pokevla model import prismatic` (docs/weights.md).",
    ),
    PublishedModel(
        name="dinov2",
        title="DINOv2 ViT-L/14 with registers, a vision tower",
        licence="Apache-2.0",
        folder="dinov2",
        files=(PublishedFile("model.safetensors"),),
        needed_for="importing prismatic, whose checkpoint does not hold it; model.initial.dino",
        repository="timm/vit_large_patch14_reg4_dinov2.lvd142m",
        revision="f3c408e77602bb412aa65fb03dfa0d5f95cb3832",
    ),
    PublishedModel(
        name="siglip",
        title="SigLIP SO400M/14 at 224 px, a vision tower",
        licence="Apache-2.0",
        folder="siglip",
        files=(PublishedFile("model.safetensors"),),
        needed_for="importing prismatic, whose checkpoint does not hold it; model.initial.siglip",
        repository="timm/vit_so400m_patch14_siglip_224.webli",
        note="No revision is known to pin it to: the newest is fetched. Not v2_webli, which is SigLIP 2.",
    ),
    PublishedModel(
        name="sam",
        title="SAM ViT-B, teacher of the masks",
        licence="Apache-2.0",
        folder=".",
        files=(
            PublishedFile(
                "sam_vit_b_01ec64.pth",
                375_042_383,
                "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            ),
        ),
        needed_for="cache.sam and model.sam of posttrain/*, and cache/libero",
        url="https://dl.fbaipublicfiles.com/segment_anything",
    ),
    PublishedModel(
        name="vggt",
        title="VGGT-1B, teacher of the geometry",
        licence="CC BY-NC 4.0: not for commercial use",
        folder="vggt-1b",
        files=(
            PublishedFile(
                "model.safetensors",
                5_026_367_224,
                "f164acf60724910d8fe1578bb499d800850c7bb0948db7555c413f9fbe60467e",
            ),
        ),
        needed_for="cache.vggt of posttrain/* and cache/libero",
        repository="facebook/VGGT-1B",
        revision="860abec7937da0a4c03c41d3c269c366e82abdf9",
    ),
)


def published_model(name: str) -> PublishedModel:
    """The entry of MODELS with this name. UsageError if there is none."""
    for model in MODELS:
        if model.name == name:
            return model
    raise UsageError(f"there is no published model {name!r}.", f"Choose from {', '.join(m.name for m in MODELS)}.")
