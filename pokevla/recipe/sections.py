"""The sections of a training recipe: data, teachers and cache, model, losses, optimizer, batch.

Each field's docstring is its documentation: `pokevla recipe explain FIELD` prints it. Values of the paper are set in
`recipes/`, with their source in a comment; the defaults here are ours unless a line says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from pokevla.recipe.data_sections.storage import StorageConfig
from pokevla.recipe.paths import DataPath, UserPath
from pokevla.recipe.running import Fraction, NonNegative, Positive, Section

# ------------------------------------------------------------------------------------------------ data


class DatasetSource(Section):
    """One dataset of the mixture."""

    path: DataPath
    """Dataset directory (it holds `dataset.json`), written by `pokevla data convert`; or its URL: `s3://`, `gs://` or
    `https://`, without credentials (docs/object_store.md)."""
    weight: Annotated[float, Field(gt=0.0)] = 1.0
    """Share of the samples drawn from this dataset, relative to the other weights."""
    expected_samples: Positive | None = None
    """Expected number of training samples. `pokevla plan` uses it while the dataset does not exist, and
    `pokevla validate` warns if the dataset differs by more than 5 %."""


class AugmentConfig(Section):
    """Augmentation of the student's images. Defaults are OpenVLA-OFT's (prismatic/vla/datasets)."""

    crop_area: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Area of the random square crop as a share of the image; a centre crop of this area at test time. The same for
    image, mask and cached features. 1.0 disables it."""
    brightness: Fraction = 0.2
    """Largest additive change of brightness, of the [0, 1] range."""
    contrast: Fraction = 0.2
    """Contrast factor is drawn from 1 minus to 1 plus this."""
    saturation: Fraction = 0.2
    """Saturation factor is drawn from 1 minus to 1 plus this."""
    hue: Annotated[float, Field(ge=0.0, le=0.5)] = 0.05
    """Largest shift of hue, in turns of the colour circle."""
    proprio_noise: NonNegative = 0.0
    """Standard deviation of Gaussian noise on the normalised proprio (ours; OFT has none)."""


class DataConfig(Section):
    """What the model sees, and in which order."""

    datasets: Annotated[list[DatasetSource], Field(min_length=1)]
    """The mixture."""
    train_split: Literal["train", "all"] = "train"
    """Samples to train on: those of split `train`, or all."""
    augment: AugmentConfig = AugmentConfig()
    """Augmentation of the student's images."""
    chunk_length: Positive = 8
    """Actions per chunk (K). 8 for LIBERO (OpenVLA-OFT, prismatic/vla/constants.py)."""
    shuffle_window: Positive = 4
    """Number of shards shuffled together: larger mixes better, smaller reads more sequentially. Ours."""
    reader_threads: Positive = 2
    """Threads that read and decode ahead of the model, per rank."""
    loader: Literal["process", "threads"] = "process"
    """Where batches are made: `process`, beside each rank, so that the rank's Python runs undisturbed; `threads`, in
    the rank itself. The batches are the same."""
    prefetch_batches: Positive = 4
    """Micro-batches kept ready ahead of the model, per rank (bounds the memory of the reader)."""
    damaged: Literal["stop", "skip"] = "stop"
    """What happens at a sample whose stored bytes are damaged (a checksum differs, a shard ends early, an image cannot
    be decoded), in the dataset or in its cached features. `stop`: the training ends with the name of shard and sample.
    `skip`: another sample of the same dataset takes its place, which depends on seed and position only; metrics, events
    and log count them by shard. Damaged bytes are never used."""
    max_damaged: Annotated[float, Field(gt=0.0, le=1.0)] = 0.01
    """With `damaged: skip`, the training ends when a rank has replaced more than this share of the samples that it
    draws from a dataset in an epoch. One of them may always be replaced. Ours."""
    max_text_tokens: Positive = 2048
    """Longest text of a sample in tokens; longer ones are truncated."""
    system_prompt: str | None = None
    """Text of the ChatML system block; `null` omits the block. The same for both trainings."""
    sort_by_length: bool = False
    """Sort each global batch by the length of its texts before it is divided into micro-batches, so that texts of
    similar length are padded together. Every step sees the same samples, and its gradient is the same up to
    rounding."""
    image_filter: Literal["bilinear", "bicubic", "bilinear_torch", "bicubic_torch", "openvla_oft"] = "bilinear"
    """How images are cropped and resized to the model's size. `bilinear`, `bicubic` (Prismatic): once, with
    antialiasing, by Pillow. `bilinear_torch`, `bicubic_torch`: as torchvision does it with tensors, 2.5 to 4 times as
    fast; crops begin and end at whole pixels, and a few values differ by 1 to 4 of 255. `openvla_oft`: as OpenVLA-OFT,
    Lanczos to the model's size and then a bilinear crop; pictures of a camera are compressed as JPEG first. Stored with
    the model and used wherever it looks at images."""
    reduce_in_decoder: bool = False
    """Let the JPEG decoder halve (or quarter) images that are at least twice as large as the model needs, before they
    are resized. Photographs of 640 x 480 are read 1.6 times as fast; values differ by less than 1 of 255 on average.
    Only the training's images, not those of evaluations. Ours."""
    blank_images: bool = False
    """Replace every image by zeros, to train a baseline that does not use images."""
    storage: StorageConfig = StorageConfig()
    """Object stores, slow file systems, copies on the node's disk."""


class TeacherConfig(Section):
    """One frozen teacher. Its output is computed once and read from the cache in training."""

    kind: str
    """Encoder, an entry of `pokevla.parts.TEACHERS`: `sam` and `sam2` give image embeddings (C, G, G) a view, `vggt`
    gives (tokens, width) a view."""
    preset: str = "mini"
    """Size of the teacher. SAM has tiny, mini, vit_b, vit_l, vit_h; SAM 2 tiny, mini, hiera_tiny, hiera_small,
    hiera_base_plus, hiera_large; VGGT tiny, mini, vggt_1b. VGGT's grid is pooled to the model's patches bilinearly, as
    in Spatial Forcing; tiny_area, mini_area, vggt_1b_area average areas instead."""
    weights: UserPath | None = None
    """Weights: a published file or folder, or what `pokevla model import` has written. `null`: random weights from
    `seed`, which carry no knowledge, as every report says."""
    seed: int = 0
    """Seed of the random weights when there is no file."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the encoder. `bf16`: matrix products in bfloat16, the rest in float32 (torch.autocast), as SAM 2
    and VGGT are published to run: for a GPU. It is a part of the cache's fingerprint."""


FeatureCodec = Literal["int8", "fp16"]
TokenCodec = Literal["int8", "int4", "fp16"]
ChecksumRule = Literal["every_read", "first_read"]


class CachedTeacherConfig(TeacherConfig):
    """One more frozen teacher, and how its features are stored."""

    codec: TokenCodec = "int8"
    """`int8` stores one scale per token, or per 64 values of a grid's channel; `int4`, for tokens of an even width,
    takes half the space; `fp16` is exact, for audits."""


class CacheConfig(Section):
    """Where cached features are, and how they are stored."""

    root: DataPath
    """Folder that holds one sub-folder per fingerprint; for training, also its URL: `s3://`, `gs://` or `https://`."""
    sam: TeacherConfig | None = TeacherConfig(kind="sam")
    """Teacher of the mask decoders; `null`: its features are not cached."""
    vggt: TeacherConfig | None = TeacherConfig(kind="vggt")
    """Teacher of the geometry alignment; `null`: its features are not cached."""
    sam_codec: FeatureCodec = "int8"
    """`int8` stores groups of 64 values with one scale; `fp16` is exact, for audits."""
    vggt_codec: TokenCodec = "int8"
    """`int8` stores one scale per token; `int4` stores groups of 64 values in four bits each, half the space at a
    cosine of about 0.996; `fp16` is exact, for audits."""
    teachers: list[CachedTeacherConfig] = []  # noqa: RUF012 (pydantic copies it)
    """Further teachers whose features are cached beside these, one of each kind."""
    checksums: ChecksumRule = "every_read"
    """When a record is compared with its checksum: at every read, or only at the first one in each process, which
    saves a third of the reader's time (ours)."""

    @property
    def all_teachers(self) -> dict[str, CachedTeacherConfig]:
        """Every teacher with its codec, by its field of the recipe, in the order of a record: SAM, VGGT, the others."""
        named: tuple[tuple[str, TeacherConfig | None, TokenCodec], ...]
        named = (("sam", self.sam, self.sam_codec), ("vggt", self.vggt, self.vggt_codec))
        teachers = {
            f"cache.{name}": CachedTeacherConfig(**dict(teacher), codec=codec)
            for name, teacher, codec in named
            if teacher is not None
        }
        return teachers | {f"cache.teachers.{index}": teacher for index, teacher in enumerate(self.teachers)}

    @model_validator(mode="before")
    @classmethod
    def _name_the_kinds(cls, values: Any) -> Any:
        """Set `kind` from the field name, so that `sam: {preset: vit_b}` is enough."""
        if isinstance(values, dict):
            kinds = {
                name: {"kind": name} | values[name] for name in ("sam", "vggt") if isinstance(values.get(name), dict)
            }
            return values | kinds
        return values


# ------------------------------------------------------------------------------------------------ model


class BridgeConfig(Section):
    """VLA-Adapter's action head, in our form for training: without the slips of the published code (docs/model.md)."""

    variant: Literal["original", "pro"] = "original"
    """`original`: all sources share one pair of key and value projections. `pro`: each source has its own, and rotary
    positions."""


class OFTConfig(Section):
    """OpenVLA-OFT's L1 head. It reads one placeholder token per number of the chunk; proprio is a token before the
    text."""

    num_blocks: Positive = 2
    """Residual blocks of the MLP (prismatic/models/action_heads.py of OpenVLA-OFT)."""
    placeholders: Literal["learned", "zeros"] = "learned"
    """Embeddings of the placeholders. `zeros`: OpenVLA-OFT's, which stay zero, so that only their positions differ."""


class InitialWeights(Section):
    """Published weights that parts of a new PokeVLM start from; the others start with random weights."""

    dino: UserPath | None = None
    """DINOv2 with registers as timm publishes it, or imported: a folder or a file."""
    siglip: UserPath | None = None
    """SigLIP as timm publishes it, or imported: a folder or a file."""
    language_model: UserPath | None = None
    """Qwen2 as published at the Hugging Face hub, or imported: a folder or a file."""


class ModelConfig(Section):
    """Which model, and what it starts from."""

    preset: Literal["tiny", "mini", "pocket"] = "mini"
    """Size. All sizes run the same code."""
    vlm: UserPath | None = None
    """PokeVLM to start from: a pre-training run, an export, or an imported folder (`pokevla model import`);
    `null`: random weights from the recipe's seed."""
    sam: UserPath | None = None
    """SAM checkpoint that both mask decoders and prompt encoders start from, the one of `cache.sam.weights`: a `.pth`
    of segment-anything, a folder of transformers, or what `pokevla model import` has written. `null`: random
    weights from the recipe's seed. Post-training only."""
    initial: InitialWeights = InitialWeights()
    """Where `vlm` is `null`: published weights for parts of it (`pokevla models get dinov2 siglip`). The projector
    between them is new."""
    tokenizer: UserPath | None = None
    """Folder of a Qwen2 tokenizer; `null`: the small one shipped for `tiny` and `mini`."""
    attention: Literal["causal", "bidirectional"] = "causal"
    """Attention of the language model. The paper does not specify it; causal is VLA-Adapter's."""
    head_condition: Literal["last", "per_layer"] = "last"
    """Hidden states that the action head reads: the last layer (paper, section V-D) or layer i for its layer i."""
    query_text: Annotated[str, Field(min_length=1)] | None = None
    """Text whose token embeddings initialise the first action queries; at most as many tokens as queries. `null`:
    random. Not in the paper; ours."""
    head: str = "poke"
    """Action head, an entry of `pokevla.parts.ACTION_HEADS`: `poke` is the paper's (section V-D), `bridge`
    VLA-Adapter's, `oft` OpenVLA-OFT's."""
    bridge: BridgeConfig = BridgeConfig()
    """Settings of the head `bridge`."""
    oft: OFTConfig = OFTConfig()
    """Settings of the head `oft`."""
    language_model: str | None = None
    """Class of the language model, an entry of `pokevla.parts.LANGUAGE_MODELS`; `null`: the preset's, Qwen2."""
    geometry_width: Positive | None = None
    """Width of the features that `loss.geometry_features` names; `null`: that of the preset's VGGT."""
    geometry_layer: Positive | None = None
    """Layer of the language model, from 1, whose vision states are aligned with the geometry teacher; `null`: the last,
    as in the paper (section V-C), after the final norm. Spatial Forcing aligns layer 24 of 32."""
    seg_token: bool = True
    """Whether <SEG> is in the sequence (paper, section V-B). Without it there are no masks, and `seg_injection` must be
    off."""
    seg_injection: bool = True
    """Whether the action head attends to the <SEG> embedding (paper, section V-D)."""

    @model_validator(mode="after")
    def _one_start(self) -> ModelConfig:
        if self.vlm is not None and self.initial != InitialWeights():
            raise ValueError("vlm and initial cannot both be given: a PokeVLM has weights for all of its parts")
        return self


class LoraConfig(Section):
    """Low-rank adapters on the VLM (peft). Rank and alpha are VLA-Adapter's; the paper does not specify them."""

    rank: Positive = 64
    """Rank r."""
    alpha: Positive = 128
    """Scaling; the update is alpha / r times B A."""
    dropout: Fraction = 0.0
    """Dropout on the adapter's input."""
    targets: str = "all-linear"
    """`all-linear`, or module names separated by commas."""


class TrainableConfig(Section):
    """What is trained, part by part. The heads, queries and decoders of PokeVLA are always trained in full."""

    vision: Literal["frozen", "lora", "full"] = "frozen"
    """The two image encoders."""
    projector: Literal["frozen", "lora", "full"] = "full"
    """The MLP between image encoders and language model."""
    language_model: Literal["frozen", "lora", "full"] = "full"
    """The language model."""


# ------------------------------------------------------------------------------------------------ training


class SegmentationLossConfig(Section):
    """Loss of the refined mask: focal and Kullback-Leibler terms (paper, section V-B; weights ours)."""

    weight: NonNegative = 1.0
    """Weight of the whole term (lambda_seg)."""
    focal: NonNegative = 10.0
    """Weight of the sigmoid focal loss, mean over pixels."""
    kl: NonNegative = 0.1
    """Weight of the KL divergence between normalised maps."""
    coarse: NonNegative = 0.0
    """Weight of the same two terms on the coarse mask. The paper does not supervise it."""


class LossConfig(Section):
    """Weights of the three losses of post-training (paper, section V; values ours)."""

    action: NonNegative = 1.0
    """L1 on normalised action chunks."""
    segmentation: SegmentationLossConfig = SegmentationLossConfig()
    """Masks of the target and reference objects."""
    geometry: NonNegative = 0.5
    """1 - cosine to the features that `geometry_features` names (Spatial Forcing's coefficient)."""
    geometry_features: str = "vggt"
    """Cached field that the vision states are aligned with: `vggt`, or a field of a further teacher."""


class OptimConfig(Section):
    """Optimizer and schedule of the learning rate."""

    name: str = "adamw"
    """Optimizer, an entry of `pokevla.parts.OPTIMIZERS`."""
    lr: Annotated[float, Field(gt=0.0)]
    """Peak learning rate."""
    weight_decay: NonNegative = 0.01
    """Decoupled weight decay; never on biases, norms and embeddings of one dimension."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's betas."""
    warmup_fraction: Fraction = 0.03
    """Share of the steps with linear warm-up. The first step already has a rate above zero."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay after warm-up."""
    final_fraction: Fraction = 0.0
    """Rate at the end as a share of the peak."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Gradients are clipped to this norm."""


class BatchConfig(Section):
    """Batch arithmetic: global = micro x accumulation x world. Accumulation is derived and must be a whole number."""

    global_: Annotated[int, Field(gt=0, alias="global")]
    """Samples per step over all ranks."""
    micro: Positive
    """Samples per rank in one forward pass."""

    model_config = ConfigDict(populate_by_name=True)
