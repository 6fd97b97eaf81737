"""`pokevla explain RUN`: pictures of what a policy looks at in a stored episode or in a trial."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pokevla.cli.progress import progress

if TYPE_CHECKING:
    from pokevla.evaluation.explaining.command import StoredEpisode
    from pokevla.evaluation.explaining.moments import SimulatedTrial


def explain(
    run: Annotated[Path, typer.Argument(help="Post-training run directory (with --no-masks also an exported model).")],
    dataset: Annotated[Path | None, typer.Option(help="Robot dataset with the episode.")] = None,
    episode: Annotated[int, typer.Option(min=0, help="Number of the episode in the dataset.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Explain every Nth stored frame.")] = 4,
    suite: Annotated[str | None, typer.Option(help="Instead of a dataset: run a trial of this suite.")] = None,
    task: Annotated[int, typer.Option(min=0, help="Task of the suite.")] = 0,
    init_state: Annotated[int, typer.Option(min=0, help="Initial state of the trial.")] = 0,
    environment: Annotated[str, typer.Option(help="Simulator of the trial.")] = "libero",
    actions_per_query: Annotated[int, typer.Option(min=1, help="Actions executed before the next query.")] = 8,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Step limit; default: the suite's own.")] = None,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the rendered images in pixels.")] = 256,
    fast_rendering: Annotated[bool, typer.Option("--fast-rendering", help="As in the demo; other pixels.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures; default: RUN/explain.")] = None,
    pictures: Annotated[int, typer.Option(min=1, max=20, help="Moments in the strip; the video has all.")] = 5,
    no_masks: Annotated[bool, typer.Option("--no-masks", help="Attention only: needs no SAM teacher.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draw a strip and a video of what a policy looks at: masks of its goal over time, coarse and fine; attention of
    the action head, of the <SEG> token and of the action queries over both views."""
    from pokevla.errors import UsageError
    from pokevla.evaluation.explaining.command import StoredEpisode, explain_episode
    from pokevla.evaluation.explaining.moments import SimulatedTrial

    source: StoredEpisode | SimulatedTrial
    if (dataset is None) == (suite is None):
        raise UsageError("Name one episode to explain.", "Either --dataset D --episode E, or --suite S --task T.")
    if dataset is not None:
        source = StoredEpisode(dataset, episode, every)
    else:
        source = SimulatedTrial(
            str(suite), task, init_state, environment, image_size, fast_rendering, actions_per_query, max_steps
        )
    with progress("moments") as listen:
        drawn = explain_episode(
            run, source, out, masks=not no_masks, pictures=pictures,
            on_progress=listen,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(drawn), "strip": str(drawn.strip), "video": str(drawn.video)}))
        return
    overlap = "" if drawn.mask_iou is None else f", mean mask IoU {drawn.mask_iou:.2f}"
    typer.echo(f"{drawn.moments} moments{overlap}")
    typer.echo(f"strip: {drawn.strip}")
    typer.echo(f"video: {drawn.video}")
