"""Costs of what PokeVLA adds to PokeVLM, and of its losses (`pokevla.model.vla`, `segmentation`, `geometry`)."""

from __future__ import annotations

from pokevla.recipe.planning.sizes import DecoderSize
from pokevla.recipe.planning.tape import FLOAT_BYTES, Activation, Tape

MASK_PIXELS = 16  # of a mask, for each cell of the image embedding: the decoder upscales twice by 2 x 2
LOSS_MAPS = 9  # kept by the two terms of the mask loss
FEED_FORWARD_LAYERS = 3  # of a hypernetwork and of the IoU head (SAM)


def run_mlp(tape: Tape, x: Activation, hidden: int, outputs: int, *, relu: bool = False) -> Activation:
    """Linear, activation, Linear: `proprio_projector`, and `seg_projector` (ReLU)."""
    inner = tape.linear("0", x, hidden)
    return tape.linear("2", tape.relu(inner) if relu else tape.gelu(inner), outputs)


def run_geometry_projector(tape: Tape, vision: Activation, target: int) -> Activation:
    """LayerNorm, Linear D->T, GELU, Linear T->T on the vision states, in the order of the views (a copy)."""
    x = tape.layer_norm(Activation(vision.rows, vision.width, vision.grad))
    return tape.linear("fc2", tape.gelu(tape.linear("fc1", x, target)), target)


def run_geometry_loss(tape: Tape, predicted: Activation) -> None:
    """Mean cosine distance in fp32: keeps the prediction, the normalised target, and two norms per token."""
    if predicted.grad:
        _keep_in_fp32(tape, predicted)
        tape.keep_bytes(FLOAT_BYTES * (predicted.numel + 2 * predicted.rows))


def _keep_in_fp32(tape: Tape, x: Activation) -> None:
    if tape.element == FLOAT_BYTES:
        tape.keep(x)
    else:
        tape.keep_bytes(FLOAT_BYTES * x.numel)


def run_prompt_encoder(tape: Tape, size: DecoderSize, logits: Activation | None) -> Activation:
    """SAM's prompt encoder: the dense prompt of the fine stage from mask logits (4 masks of 16 px a cell), that of the
    coarse stage, a trained vector. What the stage does not use is frozen: points, boxes, the other dense prompt."""
    with tape.frozen():
        tape.weights(5 * size.channels)  # two point and two box corners, "not a point"
        if logits is None:
            tape.unused(lambda other: _mask_prompt(other, size, Activation(MASK_PIXELS * size.cells, 1)))
        else:
            tape.weights(size.channels)  # no mask
    if logits is None:
        tape.weights(size.channels)
        return Activation(size.cells, size.channels, tape.trains)
    return _mask_prompt(tape, size, logits)


def _mask_prompt(tape: Tape, size: DecoderSize, logits: Activation) -> Activation:
    """Two convolutions of 2 x 2 with stride 2, each with LayerNorm and GELU, then one of 1 x 1."""
    narrow, wide = size.prompt_channels // 4, size.prompt_channels
    x = tape.convolution(logits, 4 * size.cells, 4, narrow)
    x = tape.gelu(tape.layer_norm(x))
    x = tape.convolution(x, size.cells, 4 * narrow, wide)
    return tape.convolution(tape.gelu(tape.layer_norm(x)), size.cells, wide, size.channels)


def run_mask_decoder(tape: Tape, size: DecoderSize, dense: Activation, seg: Activation) -> Activation:
    """SAM's mask decoder for one view: two-way transformer, upscaling, hypernetworks. Returns the logits of all masks,
    whose storage the fine stage keeps although it reads the first only."""
    tape.weights((1 + size.masks) * size.channels)  # IoU token, mask tokens
    own = Activation(1 + size.masks + 1, size.channels, tape.trains or seg.grad)
    image = Activation(size.cells, size.channels, dense.grad)
    tokens = own
    for layer in range(size.layers):
        tokens, image = _two_way_layer(tape, size, tokens, image, is_first=layer == 0)
    tokens = tape.add(tokens, _attention(tape, size, _new(tokens), _new(image), image, size.channels // 2))
    tokens = tape.layer_norm(tokens)
    x = tape.transposed_convolution(image, 4, size.channels // 4)
    x = tape.gelu(tape.layer_norm(x))
    x = tape.gelu(tape.transposed_convolution(x, 4, size.channels // 8))
    kernels = _hypernetworks(tape, size, tokens)
    masks = tape.product(kernels, x, 2.0 * size.masks * x.numel, x.rows)
    with tape.frozen():  # the IoU head: computed, and read by nothing
        _feed_forward(tape, Activation(1, size.channels), size.channels, size.masks)
    return masks


def _new(x: Activation) -> Activation:
    """The tensor plus a position code: a new storage."""
    return Activation(x.rows, x.width, x.grad)


def _attention(
    tape: Tape, size: DecoderSize, query: Activation, key: Activation, value: Activation, inner: int
) -> Activation:
    """SAM's attention with projections to `inner` channels and back."""
    operands = [tape.linear("q_proj", query, inner), tape.linear("k_proj", key, inner)]
    operands.append(tape.linear("v_proj", value, inner))
    attended = tape.attend(operands, query.rows, key.rows, inner, size.heads)
    return tape.linear("out_proj", attended, size.channels)


def _two_way_layer(
    tape: Tape, size: DecoderSize, tokens: Activation, image: Activation, *, is_first: bool
) -> tuple[Activation, Activation]:
    """Self-attention of the tokens, tokens to image, MLP, image to tokens."""
    query = tokens if is_first else _new(tokens)
    update = _attention(tape, size, query, query, tokens, size.channels)
    tokens = tape.layer_norm(update if is_first else tape.add(tokens, update))
    inner = size.channels // 2
    update = _attention(tape, size, _new(tokens), _new(image), image, inner)
    tokens = tape.layer_norm(tape.add(tokens, update))
    hidden = tape.relu(tape.linear("lin1", tokens, size.mlp_width))
    tokens = tape.layer_norm(tape.add(tokens, tape.linear("lin2", hidden, size.channels)))
    update = _attention(tape, size, _new(image), _new(tokens), tokens, inner)
    return tokens, tape.layer_norm(tape.add(image, update))


def _hypernetworks(tape: Tape, size: DecoderSize, tokens: Activation) -> Activation:
    """One MLP per mask token. Only that of mask 0 trains, but the gradient runs through all."""
    token = Activation(1, size.channels, tokens.grad)
    _feed_forward(tape, token, size.channels, size.channels // 8)
    with tape.frozen():
        for _ in range(size.masks - 1):
            _feed_forward(tape, token, size.channels, size.channels // 8)
    return Activation(size.masks, size.channels // 8, tokens.grad)


def _feed_forward(tape: Tape, x: Activation, hidden: int, outputs: int) -> Activation:
    for _ in range(FEED_FORWARD_LAYERS - 1):
        x = tape.relu(tape.linear("layers", x, hidden))
    return tape.linear("proj_out", x, outputs)


def run_mask_loss(tape: Tape, size: DecoderSize, masks: Activation) -> None:
    """Focal and Kullback-Leibler terms in fp32 on the first mask of a view (`pokevla.training.objectives.losses`): nine
    tensors of its size, and both terms' copy of the logits where these are not fp32."""
    if masks.grad:
        copies = 0
        if tape.element == FLOAT_BYTES:
            tape.keep(masks)  # the storage of all four
        else:
            copies = 2
        tape.keep_bytes((LOSS_MAPS + copies) * MASK_PIXELS * size.cells * FLOAT_BYTES)
