"""The DeepSpeed engine, with its traps on CPU taken out of the way (docs/architecture.md)."""

from __future__ import annotations

import datetime
import logging
import os
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from pokevla.distributed.environment import RankInfo
from pokevla.errors import EnvironmentSetupError

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

RENDEZVOUS_TIMEOUT_S = 600.0
"""How long ranks wait for each other, unless told otherwise. On a loaded file system imports take minutes."""


def import_deepspeed() -> Any:
    """Import DeepSpeed for this machine.

    On CPU its `deepspeed_shm_comm` op must be off: `init_distributed` would compile it (minutes, silently), and a job
    killed meanwhile leaves a lock on which every later run waits for ever.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed


def join_ranks(info: RankInfo, timeout_s: float = RENDEZVOUS_TIMEOUT_S) -> torch.device:
    """Meet the other ranks within `timeout_s`; return this rank's device. NCCL on GPUs, gloo otherwise.

    Raises:
        EnvironmentSetupError: the ranks do not find each other (address, port in use, a rank missing).
    """
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
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise EnvironmentSetupError(
            f"Rank {info.rank} cannot join the others at {place}: {str(error).splitlines()[0]}",
            "Check that all ranks run, MASTER_ADDR, and MASTER_PORT (is the port in use?).",
        ) from error
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return device


def initialise_engine(model: nn.Module, optimizer: Optimizer, config: dict[str, Any]) -> DeepSpeedEngine:
    """Wrap `model` and `optimizer` into a DeepSpeed engine.

    `config` is `pokevla.recipe.deepspeed_config.deepspeed_config`'s. There is no scheduler in it: the rate is a pure
    function of the step, set by the loop, because DeepSpeed does not move a scheduler in a skipped step.
    """
    deepspeed = import_deepspeed()
    if config["zero_optimization"]["stage"] == 0 and not config["bf16"]["enabled"]:
        config = config | {"gradient_clipping": 0.0}  # clip_or_drop_gradients does it
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)
    for parameter in getattr(engine.optimizer, "persistent_parameters", []):  # ZeRO stage 3
        # The small weights. Some are read outside their own module's forward pass (SAM's no-mask vector, a tower's
        # class token) or belong to a module whose output is a dataclass, on which DeepSpeed can put no hook. As
        # parameters of the whole they are gathered before its forward and its backward pass.
        deepspeed.zero.register_external_parameter(engine.module, parameter)
    return engine


def leave_ranks() -> None:
    """Take down the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_unwrapped(engine: DeepSpeedEngine) -> bool:
    """Whether the engine steps the bare optimizer: ZeRO stage 0 in fp32."""
    return not hasattr(engine.optimizer, "overflow")


def clip_or_drop_gradients(engine: DeepSpeedEngine, max_norm: float) -> float:
    """For an unwrapped engine: clip the reduced gradients, or drop them if they are not finite.

    DeepSpeed clips here too, but tells no norm and steps with NaN. An optimizer leaves parameters without gradient
    alone. Gradients are reduced already, so all ranks do the same.

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
