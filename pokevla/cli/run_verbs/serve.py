"""`pokevla serve RUN`: a policy behind a websocket, for openpi's clients and for vla-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def serve(
    run: Annotated[Path, typer.Argument(help="Post-training run, exported model, or imported checkpoint.")],
    protocol: Annotated[Literal["openpi", "vla-eval"], typer.Option(help="Whose messages to speak.")],
    host: Annotated[str, typer.Option(help="Address to listen on; the default is for this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free one.")] = 8000,
    actions_per_query: Annotated[
        int | None,
        typer.Option(min=1, help="vla-eval: actions executed before the next query; default: the whole chunk."),
    ] = None,
    statistics: Annotated[
        str | None, typer.Option(help="Of an imported checkpoint: the suite whose statistics scale the actions.")
    ] = None,
) -> None:
    """Answer observations with actions until it is interrupted. Nobody is asked for a password."""
    from pokevla.serving.command import serve_run

    def on_start(url: str) -> None:
        typer.echo(f"{run} serves {protocol} on {url}")

    serve_run(run, protocol, (host, port), actions_per_query, statistics, on_start)
