"""Costs of a forward and backward pass, from shapes alone: parameters, operations, and what autograd keeps.

A `Tape` follows one part of the model through its forward pass, with shapes in place of tensors and torch's rules of
what each operation saves for its gradient. The functions of `pokevla.recipe.planning.vlm`, `vla` and `heads` walk
through the parts; `tests/unit/recipe/planning` compares them with the real modules, whose saved tensors
(`torch.autograd.graph.saved_tensors_hooks`) and operations (`torch.utils.flop_counter`) it counts.

A matrix product of m x k by k x n costs 2mkn operations. Its backward pass costs as much again for the gradient of the
input, where one is needed, and once more for that of a trained weight. Attention costs two such products forward and
four backward, over the full square: causal kernels skip half of it, and flash kernels compute the scores a second time
in the backward pass; neither is counted (PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["frozen", "lora", "full"]
FLOAT_BYTES = 4
"""Statistics of norms and attention are fp32 in every precision."""


@dataclass(eq=False)
class Activation:
    """A tensor of one sample: rows (tokens, pixels) of a width. `kept` once some operation has saved its storage."""

    rows: int
    width: int
    grad: bool = False  # a gradient is computed for it
    kept: bool = False

    @property
    def numel(self) -> int:
        """Elements of one sample."""
        return self.rows * self.width


@dataclass(frozen=True)
class Adapters:
    """LoRA of a part. `targets` None: every Linear."""

    rank: int = 0
    targets: frozenset[str] | None = None
    has_dropout: bool = False


@dataclass
class Products:
    """Operations of one sample."""

    forward: float = 0.0
    backward: float = 0.0

    @property
    def total(self) -> float:
        """Of both passes."""
        return self.forward + self.backward


@dataclass
class Tape:
    """What one part of the model costs for one sample, filled by its operations in the order of its forward pass."""

    mode: Mode
    element: int  # bytes of an activation's element
    adapters: Adapters = Adapters()
    checkpoints: bool = False  # whether `block` recomputes
    parameters: int = 0
    trainable: int = 0
    adapter_parameters: int = 0
    matrix: Products = field(default_factory=Products)
    attention: Products = field(default_factory=Products)
    recomputed: float = 0.0  # operations that checkpointing repeats
    kept: int = 0  # bytes
    largest_block: int = 0  # bytes that recomputing one checkpointed block keeps
    transient: int = 0  # bytes of gradients that are large at the start of the backward pass
    _at_last_save: float = 0.0  # forward operations before the newest saved tensor

    # -------------------------------------------------------------------------------------- what is saved

    def keep(self, activation: Activation, element: int | None = None) -> None:
        """Save a tensor; a storage counts once."""
        if not activation.kept:
            activation.kept = True
            self.keep_bytes(activation.numel * (element or self.element))

    def keep_bytes(self, size_bytes: int) -> None:
        """Save something that no other operation saves, or (0 bytes) a weight."""
        self.kept += size_bytes
        self._at_last_save = self.matrix.forward + self.attention.forward

    def block(self, run: Callable[[Activation], Activation], x: Activation) -> Activation:
        """Run one transformer block, checkpointed if the tape `checkpoints`.

        A checkpointed block keeps only its input. The backward pass runs it again up to the last tensor that it saves
        (torch.utils.checkpoint without re-entry stops there).
        """
        if not self.checkpoints:
            return run(x)
        was_kept, kept, before = x.kept, self.kept, self.matrix.forward + self.attention.forward
        out = run(x)
        inside = self.kept - kept
        if inside == 0:
            return out
        size = x.numel * self.element
        if x.kept and not was_kept:
            inside -= size
        x.kept = True
        self.kept = kept + (0 if was_kept else size)
        self.largest_block = max(self.largest_block, inside)
        self.recomputed += self._at_last_save - before
        return out

    def idle(self) -> Tape:
        """The same parameters in a part that is not computed."""
        return Tape(self.mode, self.element, parameters=self.parameters, trainable=self.trainable)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Operations on weights that do not train, whatever the mode of the part."""
        mode, self.mode = self.mode, "frozen"
        try:
            yield
        finally:
            self.mode = mode

    # -------------------------------------------------------------------------------------- weights

    @property
    def trains(self) -> bool:
        """Whether the part's own weights train."""
        return self.mode == "full"

    def weights(self, count: int) -> None:
        """Add parameters."""
        self.parameters += count
        self.trainable += count if self.trains else 0

    def unused(self, run: Callable[[Tape], object]) -> None:
        """Add the parameters of modules that exist by name and are never computed; they are frozen."""
        other = Tape("frozen", self.element)
        run(other)
        self.parameters += other.parameters

    # -------------------------------------------------------------------------------------- operations

    def linear(self, name: str, x: Activation, outputs: int, *, bias: bool = True) -> Activation:
        """Linear layer x W + b, with its LoRA (peft: B A x beside it)."""
        count = x.width * outputs
        self.weights(count + (outputs if bias else 0))
        self.weighted_product(x, 2.0 * x.rows * count)
        targets = self.adapters.targets
        adapted = self.mode == "lora" and (targets is None or name in targets)
        if adapted:
            self._adapt(x, outputs)
        return Activation(x.rows, outputs, x.grad or self.trains or adapted)

    def _adapt(self, x: Activation, outputs: int) -> None:
        rank, source = self.adapters.rank, x
        self.adapter_parameters += rank * (x.width + outputs)
        if self.adapters.has_dropout:
            source = Activation(x.rows, x.width, x.grad)
            if x.grad:
                self.keep_bytes(x.numel)  # the mask, one byte each on a GPU
        self.keep(source)
        self._add(self.matrix, 2.0 * x.rows * x.width * rank, 2 if x.grad else 1)
        self.keep(Activation(x.rows, rank, True))
        self._add(self.matrix, 2.0 * x.rows * rank * outputs, 2)

    def weighted_product(self, x: Activation, operations: float) -> None:
        """The product of an input with a weight of the part (Linear, convolution)."""
        if self.trains:
            self.keep(x)
        elif x.grad:
            self.keep_bytes(0)
        self._add(self.matrix, operations, int(self.trains) + int(x.grad))

    def convolution(self, x: Activation, rows: int, fan_in: int, outputs: int) -> Activation:
        """Convolution whose kernels do not overlap: `rows` output positions, `fan_in` weights each."""
        self.weights(fan_in * outputs + outputs)
        self.weighted_product(x, 2.0 * rows * fan_in * outputs)
        return Activation(rows, outputs, x.grad or self.trains)

    def transposed_convolution(self, x: Activation, kernel: int, outputs: int) -> Activation:
        """Transposed convolution whose kernels (of `kernel` positions) do not overlap."""
        self.weights(x.width * outputs * kernel + outputs)
        self.weighted_product(x, 2.0 * x.rows * x.width * outputs * kernel)
        return Activation(x.rows * kernel, outputs, x.grad or self.trains)

    def product(self, x: Activation, y: Activation, operations: float, outputs: int) -> Activation:
        """Matrix product of two activations, `outputs` columns for each row of x."""
        if y.grad:
            self.keep(x)
        if x.grad:
            self.keep(y)
        self._add(self.matrix, operations, int(x.grad) + int(y.grad))
        return Activation(x.rows, outputs, x.grad or y.grad)

    def attend(self, operands: Sequence[Activation], rows: int, keys: int, width: int, heads: int) -> Activation:
        """Fused attention of `rows` queries of a total `width` to `keys` keys: keeps its operands and its result."""
        grad = any(operand.grad for operand in operands)
        out = Activation(rows, width, grad)
        if grad:
            for operand in operands:
                self.keep(operand)
            self.keep_bytes(rows * heads * FLOAT_BYTES)  # logarithms of the softmax's denominators
            self.keep(out)
        self._add(self.attention, 4.0 * rows * keys * width, 2 if grad else 0)
        return out

    def layer_norm(self, x: Activation) -> Activation:
        """LayerNorm with weight and bias: keeps its input, mean and deviation."""
        self.weights(2 * x.width)
        grad = x.grad or self.trains
        if grad:
            self.keep(x)
            self.keep_bytes(2 * x.rows * FLOAT_BYTES)
        return Activation(x.rows, x.width, grad)

    def rms_norm(self, x: Activation) -> Activation:
        """transformers' RMSNorm, elementwise: input in fp32, reciprocal root, and the normalised input."""
        self.weights(x.width)
        if x.grad:
            if self.element == FLOAT_BYTES:
                self.keep(x)
            else:
                self.keep_bytes(x.numel * FLOAT_BYTES)
            self.keep_bytes(x.rows * FLOAT_BYTES)
        if self.trains:
            self.keep_bytes(x.numel * self.element)
        return Activation(x.rows, x.width, x.grad or self.trains)

    def gelu(self, x: Activation) -> Activation:
        """GELU or SiLU: keeps its input."""
        if x.grad:
            self.keep(x)
        return Activation(x.rows, x.width, x.grad)

    def relu(self, x: Activation) -> Activation:
        """ReLU: keeps its result."""
        out = Activation(x.rows, x.width, x.grad)
        if x.grad:
            self.keep(out)
        return out

    def scale(self, x: Activation) -> Activation:
        """Product with a vector of weights (LayerScale)."""
        self.weights(x.width)
        if self.trains:
            self.keep(x)
        elif x.grad:
            self.keep_bytes(0)
        return Activation(x.rows, x.width, x.grad or self.trains)

    def multiply(self, x: Activation, y: Activation) -> Activation:
        """Elementwise product."""
        if y.grad:
            self.keep(x)
        if x.grad:
            self.keep(y)
        return Activation(x.rows, x.width, x.grad or y.grad)

    def add(self, x: Activation, y: Activation) -> Activation:
        """Sum: a new tensor, and nothing to keep."""
        return Activation(x.rows, x.width, x.grad or y.grad)

    def _add(self, products: Products, operations: float, gradients: int) -> None:
        products.forward += operations
        products.backward += gradients * operations
