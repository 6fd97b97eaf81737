"""The cost of each part of a recipe's model for one sample: `pokevla plan` and `pokevla model summary` read it here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pokevla.embodiment.description import Embodiment
from pokevla.embodiment.libero import LIBERO
from pokevla.files.remote.mirror import is_stored
from pokevla.recipe.checking.datasets import INFO_NAME, read_dataset_info
from pokevla.recipe.kinds import DataKind, data_kind_of, model_of
from pokevla.recipe.planning import vla, vlm
from pokevla.recipe.planning.head_job import HeadCondition, HeadJob
from pokevla.recipe.planning.heads import HEADS
from pokevla.recipe.planning.precision import PRECISIONS
from pokevla.recipe.planning.sizes import PresetSize, preset_size
from pokevla.recipe.planning.tape import Activation, Adapters, Mode, Products, Tape
from pokevla.recipe.schema import PretrainRecipe, TrainRecipe

# Text tokens of an average sample. Pre-training: LLaVA-like questions and answers with their system block, ours.
# Post-training: the instruction in its chat frame, 45 to 70 tokens.
TEXT_TOKENS: dict[DataKind, int] = {"vlm": 256, "robot": 60}
ANSWER_TOKENS = 64
TITLES = {
    "dino": "DINOv2",
    "siglip": "SigLIP",
    "projector": "projector",
    "language_model": "language model",
    "seg_token": "<SEG>",
    "action_queries": "action queries",
    "proprio_projector": "proprio projector",
    "action_head": "action head",
    "seg_projector": "SEG projector",
    "prompt_encoders": "prompt encoders",
    "mask_decoders": "mask decoders",
    "geometry_projector": "geometry projector",
    "losses": "losses",
}
"""Titles of the parts, in the order in which they are listed."""


@dataclass(frozen=True)
class Sample:
    """What one sample puts into the model."""

    views: float
    """A mean for questions with different numbers of images."""
    text_tokens: int
    answer_tokens: int = ANSWER_TOKENS  # trained positions of pre-training


@dataclass(frozen=True)
class PartCost:
    """One part. Operations and bytes are those of one sample."""

    name: str
    parameters: int  # LoRA adapters excluded
    trainable: int
    adapters: int = 0  # LoRA parameters, which all train
    matrix: Products = field(default_factory=Products)
    attention: Products = field(default_factory=Products)
    recomputed: float = 0.0  # operations that activation checkpointing repeats
    kept: int = 0  # bytes kept for the backward pass
    largest_block: int = 0  # bytes that recomputing one checkpointed block keeps
    transient: int = 0  # bytes of gradients that are large at the start of the backward pass
    is_counted: bool = True  # False: an action head that `HEADS` does not know

    @property
    def flops(self) -> float:
        """Operations of both passes, without recomputation."""
        return self.matrix.total + self.attention.total


@dataclass(frozen=True)
class ModelCost:
    """All parts of a recipe's model."""

    parts: tuple[PartCost, ...]
    sample: Sample
    tokens: int
    """Length of the sequence in the language model."""

    @property
    def parameters(self) -> int:
        """All parameters in memory, adapters included."""
        return sum(part.parameters + part.adapters for part in self.parts)

    @property
    def trainable(self) -> int:
        """Parameters that train."""
        return sum(part.trainable + part.adapters for part in self.parts)

    @property
    def adapters(self) -> int:
        """LoRA parameters."""
        return sum(part.adapters for part in self.parts)

    @property
    def flops(self) -> float:
        """Operations of one sample, forward and backward, without recomputation. MFU is a share of these."""
        return sum(part.flops for part in self.parts)

    @property
    def recomputed(self) -> float:
        """Operations that activation checkpointing adds. HFU counts them too."""
        return sum(part.recomputed for part in self.parts)

    @property
    def activation_bytes(self) -> int:
        """Largest memory of one sample's activations: all that is kept when the backward pass begins, and one block
        that is being recomputed, or the largest gradient."""
        extra = max((max(part.largest_block, part.transient) for part in self.parts), default=0)
        return sum(part.kept for part in self.parts) + extra

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Parts whose numbers are missing in all sums."""
        return tuple(part.name for part in self.parts if not part.is_counted)


def num_views(recipe: TrainRecipe, embodiment: Embodiment, images: float = 1) -> float:
    """Images of one sample; of a question `images` on average."""
    return embodiment.num_views if data_kind_of(recipe) == "robot" else images


def average_sample(recipe: TrainRecipe, embodiment: Embodiment = LIBERO, images: float = 1) -> Sample:
    """The sample that estimates are made for. `images`: mean of the questions, as `mean_images` finds it."""
    text = min(TEXT_TOKENS[data_kind_of(recipe)], recipe.data.max_text_tokens)
    return Sample(num_views(recipe, embodiment, images), text)


def mean_images(recipe: TrainRecipe) -> float:
    """Mean images of a sample of the mixture by its weights; a dataset that does not exist yet counts 1.

    Raises:
        DataError: a `dataset.json` that cannot be read.
    """
    sources = recipe.data.datasets
    there = [read_dataset_info(each.path) if is_stored(each.path, INFO_NAME) else None for each in sources]
    if all(info is None or info.num_images is None for info in there):
        return 1
    means = [1.0 if info is None else info.images_per_sample for info in there]
    weights = [each.weight for each in sources]
    return sum(mean * weight for mean, weight in zip(means, weights, strict=True)) / sum(weights)


def model_cost(recipe: TrainRecipe, embodiment: Embodiment = LIBERO, sample: Sample | None = None) -> ModelCost:
    """Cost of a training recipe's model for one `sample`, by default an average one. Teachers are excluded: training
    reads their cached features."""
    sample = sample or average_sample(recipe, embodiment)
    walk = _Walk(recipe, head_fitted(preset_size(recipe.model), recipe, embodiment), sample)
    acts = model_of(recipe) == "pokevla"
    size, modes = walk.size, recipe.trainable
    features = [walk.tower("dino", modes.vision), walk.tower("siglip", modes.vision)]
    tape = walk.tape(modes.projector)
    joined = Activation(
        round(sample.views * size.patches), sum(f.width for f in features), any(f.grad for f in features)
    )
    vision = vlm.run_projector(tape, joined, size.language_stack.width)
    walk.add("projector", tape)
    tokens = vision.rows + sample.text_tokens + (own_tokens(recipe, size) if acts else 0)
    tape = walk.tape(modes.language_model, checkpoints=recipe.activation_checkpointing)
    x = Activation(tokens, size.language_stack.width, vision.grad or acts or tape.trains)
    if x.grad:
        tape.keep_bytes(8 * tokens)  # the index that puts the tokens in order
    hidden = vlm.run_language_model(tape, size.language_stack, x, _mask_of(recipe))
    if acts:
        tape.keep(hidden)  # the head, and the geometry projector's copy, read it
    else:
        vlm.run_next_token(tape, hidden, size.language_stack.vocabulary, sample.answer_tokens)
    walk.add("language_model", tape)
    if acts:
        _add_robot_parts(walk, hidden, vision.rows, embodiment)
    return ModelCost(tuple(sorted(walk.parts, key=lambda part: list(TITLES).index(part.name))), sample, tokens)


def _mask_of(recipe: TrainRecipe) -> vlm.Mask:
    if isinstance(recipe, PretrainRecipe) and recipe.packing is not None:
        return "blocks"
    return "none" if recipe.model.attention == "causal" else "values"


def head_fitted(size: PresetSize, recipe: TrainRecipe, embodiment: Embodiment) -> PresetSize:
    """The preset with the layers and queries of the recipe's head."""
    if recipe.model.head != "oft":
        return size
    head = replace(size.head, layers=recipe.model.oft.num_blocks)
    return replace(size, head=head, num_queries=recipe.data.chunk_length * embodiment.action_width)


def own_tokens(recipe: TrainRecipe, size: PresetSize) -> int:
    """Tokens that PokeVLA adds to the sequence: queries, SEG, and proprio where the head does not read it."""
    return size.num_queries + int(recipe.model.seg_token) + int(recipe.model.head == "oft")


@dataclass
class _Walk:
    """Collects the parts along the forward pass."""

    recipe: TrainRecipe
    size: PresetSize
    sample: Sample
    parts: list[PartCost] = field(default_factory=list)

    def tape(self, mode: Mode = "full", *, checkpoints: bool = False) -> Tape:
        """An empty tape for a part that trains in this mode."""
        lora, element = self.recipe.lora, PRECISIONS[self.recipe.precision].weight_bytes
        if lora is None:
            return Tape(mode, element, checkpoints=checkpoints)
        targets = None if lora.targets == "all-linear" else frozenset(w.strip() for w in lora.targets.split(","))
        return Tape(mode, element, Adapters(lora.rank, targets, lora.dropout > 0), checkpoints)

    def add(self, name: str, tape: Tape, times: float = 1, **changes: bool) -> None:
        """Add the part that a tape has recorded. Its operations run `times` times in a sample."""
        self.parts.append(
            PartCost(
                name,
                tape.parameters,
                tape.trainable,
                tape.adapter_parameters,
                Products(times * tape.matrix.forward, times * tape.matrix.backward),
                Products(times * tape.attention.forward, times * tape.attention.backward),
                times * tape.recomputed,
                round(times * tape.kept),
                round(times * tape.largest_block),
                round(times * tape.transient),
                **changes,
            )
        )

    def tower(self, name: str, mode: Mode) -> Activation:
        """Run one vision tower on every view; returns the features of one."""
        size = self.size.dino if name == "dino" else self.size.siglip
        tape = self.tape(mode, checkpoints=self.recipe.activation_checkpointing)
        features = vlm.run_tower(tape, size, Activation(3 * size.image_size**2, 1))
        self.add(name, tape, self.sample.views)
        return features


def _add_robot_parts(walk: _Walk, hidden: Activation, vision_tokens: int, embodiment: Embodiment) -> None:
    """What PokeVLA adds to PokeVLM."""
    size, weights = walk.size, walk.recipe.loss_weights
    width = size.language_stack.width
    model = walk.recipe.model
    is_zero = model.head == "oft" and model.oft.placeholders == "zeros"
    for name, count, is_trained in (
        ("seg_token", width, model.seg_token),
        ("action_queries", size.num_queries * width, not is_zero),
    ):
        tape = walk.tape("full" if is_trained else "frozen")
        tape.weights(count)
        walk.add(name, tape)
    tape = walk.tape()
    proprio = vla.run_mlp(tape, Activation(1, embodiment.proprio_width), width, width)
    walk.add("proprio_projector", tape)
    _add_head(walk, hidden, vision_tokens, proprio, embodiment)
    losses = walk.tape()
    _add_decoders(walk, losses, hidden.grad, is_trained=weights is None or weights.segmentation.weight > 0)
    is_aligned = weights is None or weights.geometry > 0
    tape = walk.tape("full" if is_aligned else "frozen")
    predicted = vla.run_geometry_projector(tape, Activation(vision_tokens, width, hidden.grad), size.vggt_shape[1])
    if is_aligned:
        vla.run_geometry_loss(losses, predicted)
    walk.add("geometry_projector", tape if is_aligned else tape.idle())
    walk.add("losses", losses)


def _add_head(walk: _Walk, hidden: Activation, vision_tokens: int, proprio: Activation, embodiment: Embodiment) -> None:
    model, size = walk.recipe.model, walk.size
    run, tape = HEADS.get(model.head), walk.tape()
    if run is None:
        walk.add("action_head", tape, is_counted=False)
        return
    # Per layer, each state is one more tensor. In fp32 the next layer's norm keeps it anyway.
    states = size.language_stack.layers if model.head_condition == "per_layer" else 1
    is_kept = [state == states - 1 or tape.element == 4 for state in range(states)]
    conditions = [
        HeadCondition(
            vision=Activation(vision_tokens, hidden.width, hidden.grad, kept),
            queries=Activation(size.num_queries, hidden.width, hidden.grad),
            seg=Activation(1, hidden.width, hidden.grad, kept=True),
        )
        for kept in is_kept
    ]
    if hidden.grad and model.head == "poke":  # SEG is a row of the tail, picked with the queries: all rows are kept
        tape.keep_bytes(states * own_tokens(walk.recipe, size) * hidden.width * tape.element)
    layers = size.head.layers
    chosen = [conditions[-(-(layer + 1) * states // layers) - 1] for layer in range(layers)]
    job = HeadJob(
        size.head,
        walk.recipe.data.chunk_length,
        embodiment.action_width,
        model.seg_injection,
        tuple(chosen),
        proprio,
        model.bridge.variant,
    )
    run(tape, job)
    walk.add("action_head", tape)


def _add_decoders(walk: _Walk, losses: Tape, grad: bool, *, is_trained: bool) -> None:
    """Coarse and fine masks of every view. With weight 0 they are frozen and not computed."""
    size, views, mode = walk.size.decoder, walk.sample.views, "full" if is_trained else "frozen"
    projector, prompts, decoders, loss = (walk.tape(mode) for _ in range(4))
    width = walk.size.language_stack.width
    if grad and walk.recipe.model.head == "bridge":  # the first that keeps the tail, of which SEG is a row
        projector.keep_bytes((1 + walk.size.num_queries) * width * projector.element)
    seg = vla.run_mlp(projector, Activation(1, width, grad, kept=True), width, size.channels, relu=True)
    dense = vla.run_prompt_encoder(prompts, size, None)
    coarse = vla.run_mask_decoder(decoders, size, dense, seg)
    fine = vla.run_mask_decoder(decoders, size, vla.run_prompt_encoder(prompts, size, coarse), seg)
    weights = walk.recipe.loss_weights
    is_coarse_trained = weights is not None and weights.segmentation.coarse > 0
    if is_trained:
        vla.run_mask_loss(loss, size, fine)
        if is_coarse_trained:
            vla.run_mask_loss(loss, size, coarse)
        losses.kept += round(views * loss.kept)
    for name, tape, times in (("seg_projector", projector, 1), ("prompt_encoders", prompts, views),
                              ("mask_decoders", decoders, views)):  # fmt: skip
        walk.add(name, tape if is_trained else tape.idle(), times)
