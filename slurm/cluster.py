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
    return parse_partitions(run_slurm("sinfo", "--noheader", "--format", "%P|%a|%l|%D|%G|%t"))


def parse_partitions(text: str) -> list[Partition]:
    """Partitions of `sinfo --format %P|%a|%l|%D|%G|%t`, which has a line per partition, gres and node state."""
    by_name: dict[str, Partition] = {}
    for line in text.splitlines():
        name, available, limit, count, gres, state = line.split("|")
        plain = name.rstrip("*")
        before = by_name.get(plain)
        nodes, usable = int(count), not state.startswith(_NOT_UP)
        by_name[plain] = Partition(
            name=plain,
            is_default=name.endswith("*"),
            is_up=available == "up",
            time_limit_s=parse_duration_s(limit),
            nodes=nodes + (before.nodes if before else 0),
            nodes_up=nodes * usable + (before.nodes_up if before else 0),
            gpus_per_node=max(count_gpus(gres), before.gpus_per_node if before else 0),
        )
    return list(by_name.values())


def count_gpus(gres: str) -> int:
    """Number of GPUs in a gres string such as `gpu:8(S:0-1)` or `gpu:a100:4,gpu:v100:4`."""
    plain = re.sub(r"\([^)]*\)", "", gres)
    return sum(int(part.split(":")[-1]) for part in plain.split(",") if re.fullmatch(r"gpu(:[^:]+)?:\d+", part))
