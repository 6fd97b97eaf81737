"""`pokevla sandbox`: a Slurm on this machine, to try commands and pages without a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from slurm.sandbox.sandbox import Sandbox


def sandbox(
    command: Annotated[
        list[str] | None, typer.Argument(help="Command to run instead of a shell: pokevla sandbox -- COMMAND ...")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, max=16, help="Simulated nodes.")] = 2,
    accounting: Annotated[
        bool, typer.Option("--accounting", help="With accounts and limits (slurmdbd, MariaDB).")
    ] = False,
) -> int:
    """Open a shell in a Slurm on this machine, or run a command in it. Everything ends with the shell."""
    from slurm.sandbox.shell import run_in_sandbox

    return run_in_sandbox(command or [], nodes, accounting, _introduce if not command else lambda _: None)


def _introduce(running: Sandbox) -> None:
    config = running.config
    typer.echo(
        f"A Slurm of {config.nodes} nodes, each with {config.gpus_per_node} simulated GPUs, runs on this machine until "
        "you leave this shell.\n"
        "Walk through docs/cluster.md here, or try:\n"
        "  pokevla doctor slurm    partitions and a test job that is requeued\n"
        "  sinfo, squeue           nodes and jobs; all of Slurm's commands work\n"
        f"POKEVLA_PROFILE is a profile of this Slurm. Logs of its daemons: {running.folder}/log\n"
        "`exit` ends the daemons and all jobs."
    )
