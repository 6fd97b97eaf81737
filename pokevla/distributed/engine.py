"""The DeepSpeed engine, without its traps on CPU (docs/training.md)."""

from __future__ import annotations

import datetime
import logging
import os
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from pokevla.distributed.environment import RENDEZVOUS_TIMEOUT_S, RankInfo, rendezvous_place
from pokevla.distributed.gpus import probe_gpus, refuse_missing_gpus
from pokevla.errors import EnvironmentSetupError

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def import_deepspeed() -> Any:
    """Import DeepSpeed for this machine.

    On CPU its `deepspeed_shm_comm` op must be off: `init_distributed` would compile it (for minutes, silently), and a
    job killed during that leaves a lock on which every later run waits forever.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed


def join_ranks(info: RankInfo, timeout_s: float = RENDEZVOUS_TIMEOUT_S, *, needs_gpu: bool = False) -> torch.device:
    """Create the process group within `timeout_s`, NCCL on GPUs, gloo otherwise. Returns this rank's device.

    Raises:
        EnvironmentSetupError: there is no GPU for a rank that `needs_gpu`; or the ranks do not find each other (wrong
            address, port in use, a missing rank).
    """
    if needs_gpu and torch.cuda.device_count() <= info.local_rank:
        refuse_missing_gpus(info.local_rank + 1, probe_gpus())
    deepspeed = import_deepspeed()
    device = torch.device("cuda", info.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        # torch first: DeepSpeed's own call passes a device id, which makes NCCL hang with several groups.
        timeout = datetime.timedelta(seconds=timeout_s)
        dist.init_process_group(backend, rank=info.rank, world_size=info.world_size, timeout=timeout)
    except (RuntimeError, ValueError, dist.DistError) as error:
        raise EnvironmentSetupError(
            f"Rank {info.rank} cannot join the others at {rendezvous_place()}: {str(error).splitlines()[0]}",
            "Check that all ranks run, and that MASTER_ADDR and MASTER_PORT are right and the port is free.",
        ) from error
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return device


def initialise_engine(model: nn.Module, optimizer: Optimizer, config: dict[str, Any]) -> DeepSpeedEngine:
    """Wrap `model` and `optimizer` into a DeepSpeed engine.

    `config` comes from `pokevla.recipe.deepspeed_config.deepspeed_config`. It has no scheduler: the loop sets the rate,
    a pure function of the step, because DeepSpeed does not advance a scheduler in a skipped step.
    """
    deepspeed = import_deepspeed()
    if config["zero_optimization"]["stage"] == 0 and not config["bf16"]["enabled"]:
        config = config | {"gradient_clipping": 0.0}  # clip_or_drop_gradients does it
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    for parameter in getattr(engine.optimizer, "persistent_parameters", []):  # ZeRO stage 3
        # The small weights. Some are read outside their own module's forward pass (SAM's no-mask vector, a tower's
        # class token) or belong to a module whose output is a dataclass, to which DeepSpeed attaches no hook. As
        # parameters of the whole model they are gathered before its forward and its backward pass.
        deepspeed.zero.register_external_parameter(engine.module, parameter)
    return engine


def leave_ranks() -> None:
    """Destroy the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_unwrapped(engine: DeepSpeedEngine) -> bool:
    """Whether the engine steps the bare optimizer: ZeRO stage 0 in fp32."""
    return not hasattr(engine.optimizer, "overflow")


def clip_or_drop_gradients(engine: DeepSpeedEngine, max_norm: float) -> float:
    """For an unwrapped engine: clip the reduced gradients, or drop them if they are not finite.

    DeepSpeed clips here too, but reports no norm and steps with NaN. An optimizer skips parameters without a gradient.
    The gradients are already reduced, so all ranks decide the same.

    Returns:
        The global norm before clipping.
    """
    module = cast(nn.Module, engine.module)
    parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    if torch.isfinite(norm):
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    else:
        for parameter in parameters:
            parameter.grad = None
    return float(norm)
