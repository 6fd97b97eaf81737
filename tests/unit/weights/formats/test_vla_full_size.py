"""The names and shapes of the full-size checkpoints, as the official code builds them: complete in both directions.

`published_names/*.json` list them; `0-23` stands for every number from 0 to 23.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from pokevla.files.foreign.torch_archives import StoredTensor
from pokevla.model.presets import preset
from pokevla.model.published.config import PublishedConfig, adapter_config, oft_config, published_towers
from pokevla.weights.conversion.name_maps import plan_export, plan_import
from pokevla.weights.conversion.sources import Source
from pokevla.weights.formats.vla_checkpoints import OPENVLA_OFT, VLA_ADAPTER, llama_of

NAMES = Path(__file__).parent / "published_names"
CASES = {
    "openvla-oft": (OPENVLA_OFT, "openvla-oft.json", "action_head", 7_541_237_184, 151_117_831),
    "vla-adapter original": (VLA_ADAPTER, "vla-adapter.json", "action_head-original", 1_252_553_792, 102_129_695),
    "vla-adapter pro": (VLA_ADAPTER, "vla-adapter.json", "action_head-pro", 1_252_553_792, 217_864_223),
}
"""Format, file of names, its list of the head, numbers in the VLM, numbers in the head."""


def config_of_case(case: str) -> PublishedConfig:
    if case == "openvla-oft":
        text = {"model_type": "llama", "pad_token_id": 32000, "torch_dtype": "bfloat16", "vocab_size": 32064}
        return oft_config(*published_towers(), llama_of(text, "config.json"))
    variant = "pro" if case.endswith("pro") else "original"
    return adapter_config(*published_towers(), preset("pocket").vlm.language_model, variant)


def expanded(lines: list[str]) -> dict[str, tuple[int, ...]]:
    found = {}
    for line in lines:
        name, shape = line.split()
        numbers = re.search(r"\b(\d+)-(\d+)\b", name)
        names = [name] if numbers is None else [
            name.replace(numbers[0], str(number)) for number in range(int(numbers[1]), int(numbers[2]) + 1)
        ]  # fmt: skip
        found |= dict.fromkeys(names, tuple(int(size) for size in shape.split("x")))
    return found


def count(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


@pytest.mark.parametrize("case", CASES)
def test_every_published_tensor_is_one_of_ours_and_back(case: str) -> None:
    format_, file, head, in_model, in_head = CASES[case]
    lists = {part: expanded(lines) for part, lines in json.loads((NAMES / file).read_text()).items()}
    model = lists["model"]
    assert len(model) == 982
    assert count(model) == in_model
    assert count(lists[head]) == in_head
    published = {
        **{f"action_head.module.{name}": shape for name, shape in lists[head].items()},
        **{f"proprio_projector.module.{name}": shape for name, shape in lists["proprio_projector"].items()},
        **model,
    }
    tensors = {name: StoredTensor(Path("x"), 0, shape, torch.bfloat16) for name, shape in published.items()}
    targets = dict(format_.shapes(config_of_case(case)))
    names = format_.layouts["ddp"].names
    plan = plan_import(names, Source(Path("x"), "ddp", tensors), targets, format_.title)
    assert (plan.ignored, plan.new, plan.duplicates) == ({}, {}, {})
    assert len(plan.moves) == len(targets) == len(published)
    back = [name for move in plan_export(names, targets, "x") for name in move.sources]
    assert sorted(back) == sorted(published)
