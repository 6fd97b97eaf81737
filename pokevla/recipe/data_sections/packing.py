"""How the texts of pre-training are laid out in sequences, and how their loss is averaged."""

from __future__ import annotations

from typing import Literal

from pokevla.recipe.running import Positive, Section


class PackingConfig(Section):
    """Several samples in one sequence, instead of one padded sequence per sample. No sample attends to another."""

    tokens: Positive = 2048
    """Longest packed sequence in tokens, those of images included. A single longer sample still has a sequence of its
    own. Each micro-batch has as many sequences as this needs. Ours."""


class AnswerLossConfig(Section):
    """Loss on the tokens of the answers."""

    average: Literal["samples", "tokens"] = "samples"
    """Mean over what. `samples`: over a sample's tokens and then over the samples of the global batch, so that answers
    of all lengths weigh alike. `tokens`: over all tokens of the global batch, so that long answers weigh more
    (Prismatic's is over those of a micro-batch)."""
