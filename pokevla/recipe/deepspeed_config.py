"""Generates the DeepSpeed configuration from the recipe."""

from __future__ import annotations

from typing import Any

from pokevla.recipe.derive import DerivedBatch
from pokevla.recipe.planning.precision import PRECISIONS
from pokevla.recipe.schema import TrainRecipe

# Elements per communication bucket. DeepSpeed's 5e8 would take 2 GB on a GPU that the whole model fits twice; 5e7
# keeps a bucket at 100 MB in bf16, long enough to fill the links.
_BUCKET = 50_000_000
# Weights below this stay whole on each rank in stage 3 (norms, biases, small heads): gathering them costs more time
# than their memory is worth. DeepSpeed's own default.
_PERSISTENT = 100_000
_NEVER = 2**31 - 1


def deepspeed_config(recipe: TrainRecipe, derived: DerivedBatch) -> dict[str, Any]:
    """Configuration for `deepspeed.initialize(config=...)`.

    It has no optimizer and no scheduler: ours are client objects, because DeepSpeed's WarmupCosineLR starts with a
    rate of zero and its AdamW compiles a kernel. With bf16, master weights and optimizer states are fp32, and so is
    gradient accumulation from ZeRO stage 1 on.
    """
    bf16 = PRECISIONS[recipe.precision].master_weights
    config: dict[str, Any] = {
        "train_batch_size": derived.global_batch,
        "train_micro_batch_size_per_gpu": derived.micro,
        "gradient_accumulation_steps": derived.accumulation,
        "gradient_clipping": recipe.optim.max_grad_norm,
        "bf16": {"enabled": bf16},
        "fp16": {"enabled": False},
        "zero_optimization": _zero(recipe),
        "zero_allow_untested_optimizer": True,  # entries of OPTIMIZERS that DeepSpeed's list lacks
        # Our own log has more; DeepSpeed's lines would only clutter it.
        "steps_per_print": _NEVER,
        "wall_clock_breakdown": False,
        "dump_state": False,
    }
    if recipe.zero.stage > 0 and bf16:
        # ZeRO accumulates micro-batches in the model's dtype unless told otherwise: in bf16 small gradients would be
        # lost from the second one on. Stage 0 has no such buffer (DeepSpeed 0.19.8 refuses the setting there).
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def _zero(recipe: TrainRecipe) -> dict[str, Any]:
    stage = recipe.zero.stage
    zero: dict[str, Any] = {"stage": stage}
    if stage == 0:
        return zero
    zero |= {
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": _BUCKET,
        "allgather_bucket_size": _BUCKET,
        # Overlap needs streams of a GPU; on gloo it only adds copies.
        "overlap_comm": recipe.resources.gpus_per_node > 0,
        # Layers that one micro-batch does not touch (no mask visible) must not stop the reduction.
        "ignore_unused_parameters": True,
    }
    if stage == 3:
        zero |= {
            "stage3_prefetch_bucket_size": _BUCKET,
            "stage3_param_persistence_threshold": _PERSISTENT,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            # Gathering all weights at each save is for exports, which have their own way.
            "stage3_gather_16bit_weights_on_model_save": False,
        }
    return zero
