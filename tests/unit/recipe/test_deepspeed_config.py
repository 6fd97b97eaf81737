"""The generated DeepSpeed configuration."""

import json

import pytest

from pokevla.recipe.deepspeed_config import deepspeed_config
from pokevla.recipe.derive import derive_batch
from pokevla.recipe.schema import PretrainRecipe


def config(stage: int, precision: str, gpus: int = 0) -> dict:
    recipe = PretrainRecipe.model_validate(
        {
            "kind": "pretrain",
            "name": "x",
            "data": {"datasets": [{"path": "d"}]},
            "optim": {"lr": 1e-4, "max_grad_norm": 0.5},
            "batch": {"global": 16, "micro": 4},
            "steps": 1,
            "precision": precision,
            "zero": {"stage": stage},
            "resources": {"gpus_per_node": gpus},
        }
    )
    return deepspeed_config(recipe, derive_batch(recipe.batch, 2))


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batch_clipping_stage_and_precision_are_the_recipes(stage: int, precision: str) -> None:
    made = config(stage, precision)

    assert (made["train_batch_size"], made["train_micro_batch_size_per_gpu"]) == (16, 4)
    assert made["gradient_accumulation_steps"] == 2
    assert made["gradient_clipping"] == 0.5
    assert made["zero_optimization"]["stage"] == stage
    assert made["bf16"]["enabled"] == (precision == "bf16")
    assert json.loads(json.dumps(made)) == made


def test_optimizer_and_schedule_are_left_to_us() -> None:
    assert not {"optimizer", "scheduler"} & set(config(2, "bf16"))


def test_gradients_accumulate_in_fp32_where_deepspeed_can() -> None:
    assert config(2, "bf16")["data_types"] == {"grad_accum_dtype": "fp32"}
    assert "data_types" not in config(0, "bf16")
    assert "data_types" not in config(2, "fp32")


def test_communication_overlaps_only_on_gpus() -> None:
    assert config(2, "bf16", gpus=8)["zero_optimization"]["overlap_comm"] is True
    assert config(2, "bf16")["zero_optimization"]["overlap_comm"] is False
