"""The number formats that a model is trained in, and what each costs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """One number format. Bytes are per weight; those of the optimizer are AdamW's."""

    weight_bytes: int  # of the weights that compute; activations scale with it
    gradient_bytes: int  # of a trained weight, with the sum over micro-batches
    optimizer_bytes: int  # of a trained weight: two moments, and the fp32 master copy where there is one
    checkpoint_bytes: int  # of a trained weight: what is stored of it
    peak_share: float  # matrix products per second, as a share of the bf16 rate
    master_weights: bool  # DeepSpeed runs a bf16 engine, which keeps fp32 master copies of the weights


PRECISIONS = {
    # fp32 matrix products run as TF32 at half the bf16 rate (A100: 156 of 312 TFLOPS).
    "fp32": Precision(4, 4, 8, 12, 0.5, master_weights=False),
    # Gradients: 2 bytes, and 4 for their fp32 sum.
    "bf16": Precision(2, 6, 12, 14, 1.0, master_weights=True),
}
"""By the value of `precision` of a recipe."""
