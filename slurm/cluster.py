"""Partitions of the cluster and their limits, from `sinfo`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pokevla.jobs.durations import format_duration, parse_duration_s
from slurm.commands import run_slurm

_NOT_UP = ("down", "drain", "drng", "fail", "maint", "boot", "unk")


@dataclass(frozen=True)
class Partition:
    """One partition."""

    name: str
    is_default: bool
    is_up: bool
    time_limit_s: int | None  # None: no limit
    nodes: int
    nodes_up: int
    gpus_per_node: int  # of the node with the most GPUs
    least_nodes: int = 0  # of one job
    max_nodes: int | None = None  # of one job; None: no limit

    @property
    def most_nodes(self) -> int:
        """Largest number of nodes that one job can have."""
        return self.nodes if self.max_nodes is None else min(self.nodes, self.max_nodes)

    def describe(self) -> str:
        """One line for a person."""
        limit = "no time limit" if self.time_limit_s is None else f"at most {format_duration(self.time_limit_s)}"
        gpus = f", {self.gpus_per_node} GPUs each" if self.gpus_per_node else ", no GPUs"
        default = ", the default" if self.is_default else ""
        return f"{self.nodes} nodes ({self.nodes_up} up{gpus}), {limit}{default}"


def partitions() -> list[Partition]:
    """All partitions that this user sees.

    Raises:
        ClusterError: Slurm is not available or does not answer.
    """
    return parse_partitions(run_slurm("sinfo", "--noheader", "--format", "%P|%a|%l|%D|%G|%t|%s"))


def parse_partitions(text: str) -> list[Partition]:
    """Partitions of `sinfo --format %P|%a|%l|%D|%G|%t|%s`, which has a line per partition, gres and node state."""
    by_name: dict[str, Partition] = {}
    for line in text.splitlines():
        name, available, limit, count, gres, state, size = line.split("|")
        plain = name.rstrip("*")
        before = by_name.get(plain)
        nodes, usable = int(count), not state.startswith(_NOT_UP)
        least, most = _range(size)
        by_name[plain] = Partition(
            name=plain,
            is_default=name.endswith("*"),
            is_up=available == "up",
            time_limit_s=parse_duration_s(limit),
            nodes=nodes + (before.nodes if before else 0),
            nodes_up=nodes * usable + (before.nodes_up if before else 0),
            gpus_per_node=max(count_gpus(gres), before.gpus_per_node if before else 0),
            least_nodes=least,
            max_nodes=most,
        )
    return list(by_name.values())


def _range(size: str) -> tuple[int, int | None]:
    """Least and most nodes of a job: `1-infinite`, `2-16`, or `1` if both are the same."""
    least, _, most = size.partition("-")
    number = most or least
    return (int(least) if least.isdigit() else 0, int(number) if number.isdigit() else None)


def configuration() -> dict[str, str]:
    """The controller's configuration, by Slurm's names.

    Raises:
        ClusterError: Slurm is not available or does not answer.
    """
    lines = run_slurm("scontrol", "show", "config").splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def count_gpus(gres: str) -> int:
    """Number of GPUs in a gres string such as `gpu:8(S:0-1)` or `gpu:a100:4,gpu:v100:4`."""
    plain = re.sub(r"\([^)]*\)", "", gres)
    return sum(int(part.split(":")[-1]) for part in plain.split(",") if re.fullmatch(r"gpu(:[^:]+)?:\d+", part))
