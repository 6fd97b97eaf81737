"""The floor of a model's speed: the matrix products that it computes, alone, with operands that are already there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Product(NamedTuple):
    """`batch` products of (rows, inner) and (inner, columns)."""

    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """A multiplication and an addition for each element of the three loops."""
        return 2 * prod(self)


class ProductRecorder(TorchDispatchMode):
    """Counts the products of everything that runs inside it, backward passes included.

    A convolution counts as the product of its unfolded input and its weight. Attention counts two products over the
    full square of scores forward and four backward: recomputing the scores is the kernel's own choice.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.__name__.partition(".")[0]
        if name in ("mm", "addmm"):
            (rows, inner), columns = args[-2].shape, args[-1].shape[1]
            self.products[Product(1, rows, inner, columns)] += 1
        elif name in ("bmm", "baddbmm"):
            (batch, rows, inner), columns = args[-2].shape, args[-1].shape[2]
            self.products[Product(batch, rows, inner, columns)] += 1
        elif name == "convolution":
            self.products[_convolution(args[0], args[1], result, transposed=args[6])] += 1
        elif name == "convolution_backward":
            gradient, given, weight = args[:3]
            self.products[_convolution(given, weight, gradient, transposed=args[7])] += sum(args[10][:2])
        elif name.startswith("_scaled_dot_product"):
            backward = "backward" in name
            query, key = args[1:3] if backward else args[:2]
            batch, heads, length, depth = query.shape
            half = 2 if backward else 1
            self.products[Product(batch * heads, length, depth, key.shape[2])] += half
            self.products[Product(batch * heads, length, key.shape[2], depth)] += half
        return result


def _convolution(given: Tensor, weight: Tensor, output: Tensor, *, transposed: bool) -> Product:
    if transposed:  # (in, out, k, k), whose stride is its kernel
        return Product(1, given.shape[0] * prod(given.shape[2:]), weight.shape[0], prod(weight.shape[1:]))
    return Product(1, output.shape[0] * prod(output.shape[2:]), prod(weight.shape[1:]), weight.shape[0])


def record_products(run: Callable[[], object]) -> Counter[Product]:
    """The products of one call."""
    with ProductRecorder() as recorder:
        run()
    return recorder.products


def floor_of(products: Counter[Product]) -> Callable[[], None]:
    """A function that computes the products and nothing else. Operands of one shape are reused."""
    work = []
    for product, count in products.items():
        if not product.flops:
            continue
        batch, rows, inner, columns = product
        first, second, out = (
            torch.randn(batch, *shape) for shape in ((rows, inner), (inner, columns), (rows, columns))
        )
        work.append((first, second, out, count))

    def run() -> None:
        for first, second, out, count in work:
            for _ in range(count):
                if len(first) == 1:
                    torch.mm(first[0], second[0], out=out[0])
                else:
                    torch.bmm(first, second, out=out)

    return run


def total_flops(products: Counter[Product]) -> int:
    """Operations of all products."""
    return sum(product.flops * count for product, count in products.items())
