"""Fields of a recipe about how a job runs, not what it learns: sharding, saving, logging, guards, resources.

Part of `pokevla.recipe.schema`, which explains what applies to all fields.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from pokevla.files.labels import name_problem

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0.0)]


def _label(name: str) -> str:
    problem = name_problem(name)
    if problem is not None:
        raise PydanticCustomError("label", "{problem}", {"problem": problem})
    return name


Label = Annotated[str, AfterValidator(_label)]
"""A name that becomes part of file names, tables and pages (`pokevla.files.labels.name_problem`)."""


class Section(BaseModel):
    """Base of every section: unknown fields are errors, values never change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )


class ZeroConfig(Section):
    """DeepSpeed ZeRO."""

    stage: Literal[0, 1, 2, 3] = 2
    """What is sharded over ranks: 1 optimizer states, 2 also gradients, 3 also weights. With bf16 prefer 1 to 0:
    stage 0 accumulates micro-batches in bf16, the others in fp32."""


class CheckpointConfig(Section):
    """When state is saved, and what is kept."""

    every_steps: Positive = 1000
    """Steps between saves; the last step is always saved."""
    keep_last: Positive = 2
    """Newest complete checkpoints kept for resume."""
    keep_every_steps: Positive | None = None
    """Milestones that are never deleted: every multiple of this."""
    healthy_after_steps: Positive = 20
    """A checkpoint is healthy once this many steps in a row after it had a finite loss and gradient. The newest healthy
    one is never deleted."""
    max_failed_saves: Positive = 3
    """After a failed save (a full disk, say) training goes on; this many failures in a row end the run."""
    background: bool = True
    """The loop waits only for a copy of the state in memory, which a thread writes while training goes on. From the
    first save on, each rank needs as much memory as its share of a checkpoint. The last save of a run or of a job waits
    for the disk."""


class LogConfig(Section):
    """What is logged, where, and how often."""

    sinks: Annotated[tuple[str, ...], Field(min_length=1)] = ("jsonl", "tensorboard")
    """Where metrics go, entries of `pokevla.parts.METRIC_SINKS`: `jsonl` (always: `pokevla watch` and the report read
    metrics.jsonl), `tensorboard`, `wandb` (Weights & Biases; needs the extra `wandb`)."""
    every_steps: Positive = 10
    """Steps between lines of metrics."""
    grad_norms_every_steps: Annotated[int, Field(ge=0)] = 100
    """Steps between measurements of each loss's gradient norm on the shared model; 0 never (it costs a backward
    pass per loss)."""


class GuardsConfig(Section):
    """Checks that skip a step, report it, or end the run. All defaults are ours."""

    max_consecutive_skips: Positive = 20
    """Steps with a non-finite gradient are skipped; this many in a row end the run."""
    spike: Literal["off", "record", "skip", "stop"] = "record"
    """What to do at a loss spike: `record` (the default, because it does not affect training) writes an event; `skip`
    skips the step on all ranks; `stop` ends the run."""
    spike_factor: Annotated[float, Field(gt=0)] = 10.0
    """A step is a spike when its largest micro-batch loss is this many robust deviations (1.4826 times the median
    absolute deviation) above the median of the last `spike_window` steps. OLMo takes 6 plain standard deviations."""
    spike_window: Annotated[int, Field(ge=8)] = 128
    """Steps over which the median is taken (128 is OLMo's). Spikes are detected after half of them."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 3600.0
    """Seconds that one phase may last until the first step is done, and later a save, a validation or the export.
    Loading weights and the first batches from a busy file system takes long."""
    step_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that one phase of a step (data, forward, backward, optimizer) may last after the first step. Then the
    rank writes all its stacks to `logs/rank_00000.hang` and ends, so that the job can restart."""
    rendezvous_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that ranks wait for each other at the start. The environment variable POKEVLA_RENDEZVOUS_TIMEOUT_S
    overrides it: a requeued job whose node is missing should give up soon."""
    stop_grace_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that `pokevla train` waits after a signal for its ranks to end their step, save and stop, before it
    kills them. Under Slurm the lead time of the signal applies instead."""
    straggler_factor: Annotated[float, Field(gt=1)] = 1.3
    """A host is slow if its slowest rank takes this many times the mean of all ranks for its own work in a step."""
    straggler_steps: Positive = 100
    """An event names a host that has been slow for this many steps in a row."""


class ResourcesConfig(Section):
    """What the job runs on."""

    nodes: Positive = 1
    """Machines."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """GPUs per machine, one rank each; 0 runs `cpu_ranks` ranks on the CPU (gloo)."""
    cpu_ranks: Positive = 2
    """Number of ranks without GPUs."""
    threads_per_rank: Positive = 1
    """OMP threads per CPU rank."""
    gpu_memory_gib: Annotated[float, Field(gt=0)] = 80.0
    """Memory of one GPU, for `pokevla plan`."""
    gpu_bf16_tflops: Annotated[float, Field(gt=0)] = 312.0
    """Peak of one GPU in bf16, for `pokevla plan` (312: A100)."""
    expected_mfu: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Expected share of the peak, for the planned hours, of the model's operations without recomputation (MFU): the
    `mfu` that a run logs can be copied here. Ours; measure it on your cluster."""
    time_limit: str = "24:00:00"
    """Wall-clock limit of one Slurm job, HH:MM:SS."""

    @property
    def world_size(self) -> int:
        """Ranks over all machines."""
        return self.nodes * self.gpus_per_node if self.gpus_per_node else self.cpu_ranks
