"""The configuration files of the sandbox, as text. Comments explain the unusual lines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SandboxConfig:
    """Size, ports and timeouts of a sandbox."""

    folder: Path
    host: str  # of this machine
    user: str  # that runs the daemons
    nodes: int
    gpus_per_node: int
    cpus_per_node: int
    controller_port: int
    node_ports: tuple[int, ...]
    accounting_port: int | None  # slurmdbd's; None without accounting
    database_port: int | None  # MariaDB's
    node_timeout_s: int  # without an answer until a node counts as down
    kill_wait_s: int  # from SIGTERM to SIGKILL
    grace_s: int  # from a preemption's SIGTERM to its requeue
    remember_s: int  # how long the controller keeps jobs that have ended

    @property
    def node_names(self) -> list[str]:
        """n1, n2, ..."""
        return [f"n{number}" for number in range(1, self.nodes + 1)]


def slurm_conf(config: SandboxConfig) -> str:
    """`slurm.conf`: N nodes on one machine, no cgroups, partitions `train` (default), `high`, `gpu` ..."""
    folder, user = config.folder, config.user
    lines = [
        "ClusterName=sandbox",
        f"SlurmctldHost={config.host}(127.0.0.1)",
        f"SlurmctldPort={config.controller_port}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        # The lifetime of a job's credential is also how long a requeued job waits before it may start (default 120 s).
        f"AuthInfo=socket={folder}/munge/socket,cred_expire=10",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool.%n",
        f"SlurmctldPidFile={folder}/slurmctld.pid",
        f"SlurmdPidFile={folder}/slurmd.%n.pid",
        f"SlurmctldLogFile={folder}/log/slurmctld.log",
        f"SlurmdLogFile={folder}/log/slurmd.%n.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        f"JobAcctGatherType=jobacct_gather/{'linux' if config.accounting_port else 'none'}",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU",
        "SchedulerParameters=sched_interval=2,bf_interval=2",
        "MpiDefault=none",
        "ReturnToService=2",
        "SlurmdParameters=config_overrides",  # a node may claim more processors than the machine has
        f"SlurmdTimeout={config.node_timeout_s}",
        f"KillWait={config.kill_wait_s}",
        f"MinJobAge={config.remember_s}",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
    ]
    if config.accounting_port:
        lines += [
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={config.accounting_port}",
            # With munge this is no password but the socket for talking to slurmdbd (man slurm.conf).
            f"AccountingStoragePass={folder}/munge/socket",
            "AccountingStorageEnforce=associations,limits,qos",
        ]
    if config.gpus_per_node:
        lines.append("GresTypes=gpu")
    gres = f" Gres=gpu:{config.gpus_per_node}" if config.gpus_per_node else ""
    lines += [
        f"NodeName={name} NodeHostname={config.host} NodeAddr=127.0.0.1 Port={port} CPUs={config.cpus_per_node} "
        f"RealMemory=10000{gres} State=UNKNOWN"
        for name, port in zip(config.node_names, config.node_ports, strict=True)
    ]
    lines += [
        f"PartitionName=train Nodes=ALL Default=YES MaxTime=UNLIMITED PriorityTier=1 PreemptMode=REQUEUE "
        f"GraceTime={config.grace_s}",
        "PartitionName=high Nodes=ALL MaxTime=UNLIMITED PriorityTier=10 PreemptMode=OFF",
        # The names that slurm/profiles/ and docs/cluster.md use.
        "PartitionName=gpu Nodes=ALL MaxTime=1-00:00:00 PriorityTier=5 PreemptMode=OFF",
        "PartitionName=preempt Nodes=ALL MaxTime=2-00:00:00 PriorityTier=1 PreemptMode=REQUEUE "
        f"GraceTime={config.grace_s}",
        "PartitionName=short Nodes=ALL MaxTime=10 PriorityTier=1 PreemptMode=REQUEUE",
    ]
    return "\n".join(lines) + "\n"


def gres_conf(config: SandboxConfig) -> str:
    """`gres.conf`: simulated GPUs. Slurm requires character devices; links to /dev/null need no root rights."""
    if not config.gpus_per_node:
        return ""
    return f"NodeName=n[1-{config.nodes}] Name=gpu File={config.folder}/gpu[0-{config.gpus_per_node - 1}]\n"


def slurmdbd_conf(config: SandboxConfig, password: str) -> str:
    """`slurmdbd.conf`. Slurm refuses it if others than its owner can read it."""
    folder = config.folder
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={folder}/munge/socket",
        "DbdHost=localhost",
        "DbdAddr=127.0.0.1",
        f"DbdPort={config.accounting_port}",
        f"SlurmUser={config.user}",
        f"PidFile={folder}/slurmdbd.pid",
        f"LogFile={folder}/log/slurmdbd.log",
        "StorageType=accounting_storage/mysql",
        "StorageHost=127.0.0.1",
        f"StoragePort={config.database_port}",
        "StorageUser=slurm",
        f"StoragePass={password}",
        "StorageLoc=slurm_acct_db",
    ]
    return "\n".join(lines) + "\n"
