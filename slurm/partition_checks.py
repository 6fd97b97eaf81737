"""Preflight checks that need Slurm: does the partition fit the job?"""

from __future__ import annotations

from collections.abc import Iterator

from pokevla.errors import ClusterError
from pokevla.jobs.durations import format_duration
from pokevla.jobs.launcher import Check
from pokevla.jobs.plan import JobPlan
from pokevla.jobs.profile import Profile, require_partition
from slurm.cluster import Partition, partitions


def partition_checks(plan: JobPlan, profile: Profile) -> Iterator[Check]:
    """The partition exists, has such nodes, and allows the time."""
    yield lambda: _partition(plan, profile, partitions())


def _partition(plan: JobPlan, profile: Profile, known: list[Partition]) -> list[str]:
    if profile.partition is not None:
        require_partition(profile.partition, [partition.name for partition in known])
    chosen = [p for p in known if (p.name == profile.partition if profile.partition else p.is_default)]
    if not chosen:
        return ["the cluster has no default partition; the profile should name one."]
    partition = chosen[0]
    gpus = profile.gpus_per_node if profile.gpus_per_node is not None else partition.gpus_per_node
    if plan.gpus_per_node > gpus:
        raise ClusterError(
            f"resources.gpus_per_node is {plan.gpus_per_node}, a node of partition {partition.name} has {gpus}.",
            f"Spread it: resources.nodes={-(-plan.nodes * plan.gpus_per_node // max(gpus, 1))} "
            f"resources.gpus_per_node={gpus}" if gpus else "Choose a partition with GPUs.",
        )  # fmt: skip
    if plan.nodes > partition.nodes:
        raise ClusterError(
            f"resources.nodes is {plan.nodes}, partition {partition.name} has {partition.nodes}.", "Use fewer nodes."
        )
    if partition.time_limit_s is not None and plan.time_limit_s > partition.time_limit_s:
        raise ClusterError(
            f"a time limit of {format_duration(plan.time_limit_s)} is above that of partition {partition.name}, "
            f"{format_duration(partition.time_limit_s)}: the job would wait forever.",
            "Lower resources.time_limit: the job is requeued and continues.",
        )
    if not partition.is_up:
        return [f"partition {partition.name} is down: the job waits until it is up again."]
    if plan.nodes > partition.nodes_up:
        return [f"partition {partition.name} has {partition.nodes_up} usable nodes at the moment."]
    return []
