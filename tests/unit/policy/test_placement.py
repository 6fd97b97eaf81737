"""What a policy puts on its device, in which number format, and what that does to its actions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pokevla.evaluation.running.messages import Query
from pokevla.policy.placement import dtype_for, place_for_acting, place_mask_parts
from pokevla.policy.policy import Policy

BF16_BOUND = {"tiny": 0.02, "mini": 0.08}
"""Largest difference of a normalised action between bf16 and fp32, with random weights and images of noise, where
actions differ by 1.2 (tiny) and 0.4 (mini). Measured: 0.010 and 0.045; with the head in bf16 too, 0.031 and 0.068."""


def test_a_gpu_computes_in_bf16_and_a_cpu_in_fp32() -> None:
    assert dtype_for("cuda:1") == torch.bfloat16
    assert dtype_for("cpu") == torch.float32


def test_only_the_vlm_is_rounded_and_only_what_acting_needs_is_moved(make_policy: Callable[..., Policy]) -> None:
    model = make_policy().model.double()  # so that what stays where it was is seen
    place_for_acting(model, "cpu", torch.bfloat16)
    formats = {name: parameter.dtype for name, parameter in model.named_parameters()}
    low = {name for name, dtype in formats.items() if dtype == torch.bfloat16}
    acting = {name for name, dtype in formats.items() if dtype == torch.float32}
    left = {name.split(".")[0] for name, dtype in formats.items() if dtype == torch.float64}
    assert {"seg_token", "action_queries", "vlm.projector.fc1.weight"} < low
    assert {name.split(".")[0] for name in acting} == {"action_head", "proprio_projector"}
    assert left >= {"seg_projector", "coarse_mask_decoder", "fine_mask_decoder", "geometry_projector"}
    idle = [name for name, dtype in formats.items() if name.startswith("vlm") and dtype == torch.float64]
    assert idle
    assert all("blocks.1." in name or "featurizer.norm" in name or "attn_pool" in name for name in idle)
    place_mask_parts(model)
    after = {name.split(".")[0] for name, value in model.named_parameters() if value.dtype == torch.float64}
    assert after == {"vlm", "geometry_projector"}


def test_an_output_layer_of_its_own_stays_behind(make_policy: Callable[..., Policy]) -> None:
    import dataclasses

    from pokevla.model.building import build_vla
    from pokevla.model.presets import preset

    tied = preset("tiny")
    language = dataclasses.replace(tied.vlm.language_model, tie_embeddings=False)
    model = build_vla(dataclasses.replace(tied, vlm=dataclasses.replace(tied.vlm, language_model=language)))
    place_for_acting(model, "cpu", torch.bfloat16)
    assert model.vlm.language_model.lm_head.weight.dtype == torch.float32
    assert model.vlm.language_model.get_input_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.parametrize("size", ["tiny", "mini"])
def test_actions_in_bf16_are_near_those_in_fp32(
    make_policy: Callable[..., Policy], queries: list[Query], size: str
) -> None:
    policy = make_policy(size, noise=0.2 if size == "tiny" else 0.0)
    images = np.stack([query.images for query in queries if query.images is not None])
    proprio, texts = np.stack([query.proprio for query in queries]), [query.instruction for query in queries]

    def normalised(policy: Policy) -> torch.Tensor:
        with torch.inference_mode():
            return policy.run(policy.prepare(images, proprio, texts)).actions

    exact = normalised(policy)
    place_for_acting(policy.model, "cpu", torch.bfloat16)
    rounded = normalised(make_policy(size, model=policy.model))  # with instructions of its own
    assert rounded.dtype == torch.float32
    difference = float((rounded - exact).abs().max())
    assert 0 < difference < BF16_BOUND[size]
    assert exact.std() > 0.1, "the actions depend on their input"


def test_acting_loads_no_teacher() -> None:
    code = "import sys, pokevla.policy.policy; print([m for m in sys.modules if m.startswith('pokevla.teachers')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
