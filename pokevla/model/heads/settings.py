"""Settings that only one kind of action head has. They are part of `ActionHeadConfig`, and so of every export."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

BridgeVariant = Literal["original", "pro"]


@dataclass(frozen=True)
class BridgeQuirks:
    """What the published code of VLA-Adapter does and our trained form does not; one switch each.

    All are off in a head that we train. Published weights need all of them (`published`). Line numbers are those of
    prismatic/models/action_heads.py in OpenHelix-Team/VLA-Adapter @838a36d, unless another file is named. What that
    code does with the sequence (positions shifted by one, vision from token 0) is not part of the head.
    """

    zero_latents: bool = False
    """The latents are zeros of (K, A * W), sent through LayerNorm, Linear and ReLU (lines 60-67, 107-115). Without
    noise all K rows are equal, so the original variant predicts the same action K times. Ours: learned (K, W)."""
    latent_noise: bool = False
    """Training adds N(0, 0.02) to the latents: one array for the whole batch, drawn again in each forward pass and
    never optimised (lines 14-17, 69-72). With zero latents the LayerNorm then makes it unit variance."""
    gate_scales_logits: bool = False
    """tanh(gate) multiplies the LOGITS of vision within one softmax over all sources (lines 269-273, 391-395). A gate
    of 0 then gives every vision token the same logit 0, not the weight 0. Ours: vision has
    a softmax of its own, whose result is multiplied by tanh(gate), as in LLaMA-Adapter (arXiv 2303.16199)."""
    no_residual: bool = False
    """A block returns ReLU(Linear(LN(attention + x))), without a residual connection around it (lines 286, 414). Ours:
    x + attention, then x + ReLU(Linear(LN(x)))."""
    bf16_queries: bool = False
    """Query states and projected proprio are rounded to bf16, vision states are not (modeling_prismatic.py:855, line
    53)."""
    adjacent_rope_pairs: bool = False
    """Pro: the rotation pairs adjacent channels (0, 1), (2, 3), ... but its angles are laid out for the pairs
    (i, i + d/2), so both channels of a pair turn by different angles (lines 135-165). Ours: pairs (i, i + d/2)."""
    rope_in_weight_dtype: bool = False
    """Pro: positions, frequencies and angles are computed in the dtype of the weights (lines 158-165; evaluation casts
    the head to bf16, openvla_utils.py:515), where positions above 256 are not exact. Ours: fp32."""
    unused_film: bool = False
    """Pro: each block has a Linear W -> 2W that nothing reads (lines 326-329). Ours: not built."""

    @classmethod
    def published(cls) -> BridgeQuirks:
        """All switches on: the form that the published weights were trained in."""
        return cls(**{switch.name: True for switch in fields(cls)})


@dataclass(frozen=True)
class BridgeSettings:
    """Settings of the head `bridge` (VLA-Adapter)."""

    variant: BridgeVariant = "original"
    """`original`: one pair of key and value projections for all sources. `pro`: a pair for each source, and rotary
    positions."""
    quirks: BridgeQuirks = field(default_factory=BridgeQuirks)
