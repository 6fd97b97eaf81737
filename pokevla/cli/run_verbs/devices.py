"""The option `--allow-cpu` of `train` and `resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from pokevla.recipe.schema import TrainRecipe

AllowCpu = Annotated[
    bool, typer.Option("--allow-cpu", help="Train on resources.cpu_ranks processes if no GPU can be used here.")
]


def overrides_for_cpu(recipe: TrainRecipe, *, allow_cpu: bool) -> list[str]:
    """Overrides with which the recipe runs on the CPU, if it asks for GPUs, none can be used here, and the user allows
    it; otherwise none.

    Raises:
        EnvironmentSetupError: GPUs that the recipe asks for are missing, and the CPU is not allowed.
    """
    from pokevla.distributed.gpus import probe_gpus, refuse_missing_gpus

    needed = recipe.resources.gpus_per_node
    if needed == 0:
        return []
    probe = probe_gpus()
    if probe.usable > 0 or not allow_cpu:
        refuse_missing_gpus(needed, probe)
        return []
    typer.echo(f"warning: no GPU can be used here ({probe.facts}): training on the CPU (--allow-cpu)", err=True)
    return ["resources.gpus_per_node=0", "resources.nodes=1"]
