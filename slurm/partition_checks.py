"""Preflight checks that need Slurm: do the partition and the user's limits fit the job?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from pokevla.errors import ClusterError
from pokevla.jobs.durations import format_duration
from pokevla.jobs.launcher import Check
from pokevla.jobs.plain_path import plain_path
from pokevla.jobs.plan import JobPlan
from pokevla.jobs.profile import Profile, require_partition
from slurm.cluster import Partition, configuration, partitions
from slurm.limits import require_allowance, require_array


def partition_checks(plan: JobPlan, profile: Profile) -> Iterator[Check]:
    """The partition exists, has such nodes and allows the time; path, array and account are possible."""
    yield lambda: _partition(plan, profile, partitions())
    yield lambda: _path(plan)
    if plan.pieces:
        yield lambda: _array(plan)
    yield lambda: require_allowance([plan], profile)


def _path(plan: JobPlan) -> list[str]:
    plain_path(plan.folder)
    return []


def _array(plan: JobPlan) -> list[str]:
    require_array(plan, configuration())
    return []


def _partition(plan: JobPlan, profile: Profile, known: Sequence[Partition]) -> list[str]:
    """Of several partitions, as in `gpu,preempt`, one that fits is enough: Slurm chooses it."""
    names = [] if profile.partition is None else profile.partition.split(",")
    for name in names:
        require_partition(name, [partition.name for partition in known])
    chosen = [partition for partition in known if (partition.name in names if names else partition.is_default)]
    if not chosen:
        return ["the cluster has no default partition; the profile should name one."]
    misfits = {partition: _misfit(plan, profile, partition) for partition in chosen}
    fitting = [partition for partition, misfit in misfits.items() if misfit is None]
    if not fitting:
        raise misfits[max(chosen, key=_generosity)] or ClusterError("no partition fits.")
    usable = [partition for partition in fitting if partition.is_up]
    shown = ", ".join(partition.name for partition in fitting)
    if not usable:
        return [f"partition {shown} is down: the job waits until it is up again."]
    nodes_up = max(partition.nodes_up for partition in usable)
    return [f"partition {shown} has {nodes_up} usable nodes at the moment."] if plan.nodes > nodes_up else []


def _generosity(partition: Partition) -> tuple[float, ...]:
    time_limit = math.inf if partition.time_limit_s is None else partition.time_limit_s
    return partition.gpus_per_node, partition.most_nodes, time_limit


def _misfit(plan: JobPlan, profile: Profile, partition: Partition) -> ClusterError | None:
    """Why a job can never run in a partition; None if it can."""
    gpus = profile.gpus_per_node if profile.gpus_per_node is not None else partition.gpus_per_node
    if plan.gpus_per_node > gpus:
        return ClusterError(
            f"resources.gpus_per_node is {plan.gpus_per_node}, a node of partition {partition.name} has {gpus}.",
            f"Spread it: resources.nodes={-(-plan.nodes * plan.gpus_per_node // max(gpus, 1))} "
            f"resources.gpus_per_node={gpus}" if gpus else "Choose a partition with GPUs.",
        )  # fmt: skip
    if plan.nodes > partition.nodes:
        return ClusterError(
            f"resources.nodes is {plan.nodes}, partition {partition.name} has {partition.nodes}.", "Use fewer nodes."
        )
    if not partition.least_nodes <= plan.nodes <= partition.most_nodes:
        return ClusterError(
            f"resources.nodes is {plan.nodes}, a job in partition {partition.name} has {partition.least_nodes} to "
            f"{partition.most_nodes}.",
            "Choose another number of nodes, or another partition.",
        )
    if partition.time_limit_s is not None and plan.time_limit_s > partition.time_limit_s:
        return ClusterError(
            f"a time limit of {format_duration(plan.time_limit_s)} is above that of partition {partition.name}, "
            f"{format_duration(partition.time_limit_s)}: the job would wait forever.",
            "Lower resources.time_limit: the job is requeued and continues.",
        )
    return None
