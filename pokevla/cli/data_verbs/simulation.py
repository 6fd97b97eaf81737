"""`pokevla data demos` and `pokevla data scenes`: data from the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from pokevla.cli.progress import progress
from pokevla.errors import UsageError

_Number = TypeVar("_Number", int, float)
_Suite = Annotated[str, typer.Option(help="LIBERO suite, such as libero_object.")]
_Out = Annotated[Path, typer.Option(help="Directory for the HDF5 files.")]
_Seed = Annotated[int, typer.Option(help="Seed: the same arguments give the same content.")]
_ImageSize = Annotated[int, typer.Option(min=16, max=1024, help="Side of the images in pixels.")]
_InitStates = Annotated[str, typer.Option(metavar="LOW:HIGH", help="Range of shipped initial states, HIGH excluded.")]
_Workers = Annotated[int, typer.Option(min=1, help="Simulator processes; the result does not depend on it.")]
_Fast = Annotated[
    bool,
    typer.Option("--fast-rendering", help="Without anti-aliasing and reflections, simplified meshes: much faster."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def demos(
    suite: _Suite,
    task: Annotated[int, typer.Option(min=0, help="Task index within the suite.")],
    episodes: Annotated[int, typer.Option(min=1, help="Successful episodes to keep.")],
    out: _Out,
    seed: _Seed = 0,
    image_size: _ImageSize = 128,
    image_stride: Annotated[int, typer.Option(min=1, help="Render every Nth step.")] = 1,
    masks: Annotated[bool, typer.Option(help="Store instance masks too.")] = True,
    dart_sigma: Annotated[
        float, typer.Option(min=0.0, help="Noise on executed actions (labels stay clean), in action units.")
    ] = 0.0,
    random_start_steps: Annotated[
        int, typer.Option(min=0, help="Maximum number of random moves before recording.")
    ] = 0,
    target_shift: Annotated[
        str | None, typer.Option(metavar="LOW:HIGH", help="Move the target by LOW to HIGH metres per axis.")
    ] = None,
    init_states: _InitStates = "0:50",
    val_fraction: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of episodes for split `val`.")] = 0.0,
    max_attempts: Annotated[int | None, typer.Option(min=1, help="Give up after this many attempts.")] = None,
    workers: _Workers = 2,
    fast_rendering: _Fast = False,
    as_json: _Json = False,
) -> None:
    """Record demonstrations of one LIBERO task by the scripted expert, in LIBERO's own HDF5 layout."""
    from pokevla.simulation.recordings.demonstrations import DemoSettings, collect_demonstrations

    shift = None if target_shift is None else _pair(target_shift, "--target-shift", float)
    settings = DemoSettings(
        suite=suite,
        task_index=task,
        episodes=episodes,
        out=out,
        seed=seed,
        image_size=image_size,
        image_stride=image_stride,
        masks=masks,
        dart_sigma=dart_sigma,
        random_start_steps=random_start_steps,
        target_shift_m=shift,
        init_states=_pair(init_states, "--init-states", int),
        val_fraction=val_fraction,
        max_attempts=max_attempts,
        workers=workers,
        fast_rendering=fast_rendering,
    )
    with progress("episodes") as listen:
        report = collect_demonstrations(settings, lambda kept, failed, requested: listen(kept, requested, failed))
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
        return
    mean_steps = sum(report.steps) / len(report.steps)
    typer.echo(
        f"Kept {report.kept} of {report.requested} requested episodes, {report.failed} attempts failed; "
        f"{mean_steps:.0f} steps on average.\nWrote {report.path}"
    )


def scenes(
    suite: _Suite,
    count: Annotated[int, typer.Option(min=1, help="Scenes to render, two views each.")],
    out: _Out,
    task: Annotated[list[int] | None, typer.Option(help="Task index. May be repeated; default: all tasks.")] = None,
    seed: _Seed = 0,
    image_size: _ImageSize = 128,
    init_states: _InitStates = "0:50",
    workers: _Workers = 2,
    fast_rendering: _Fast = False,
) -> None:
    """Render still images of rearranged scenes with instance masks, for VLM pre-training."""
    from pokevla.simulation.recordings.scenes import collect_scenes
    from pokevla.simulation.suites import list_tasks

    tasks = tuple(task) if task else tuple(info.index for info in list_tasks(suite))
    states = _pair(init_states, "--init-states", int)
    with progress("scenes") as listen:
        path = collect_scenes(
            suite,
            tasks,
            count,
            out,
            seed,
            image_size,
            workers,
            fast_rendering,
            states,
            on_progress=listen,
        )
    typer.echo(f"Wrote {path}")


def _pair(text: str, option: str, number: type[_Number]) -> tuple[_Number, _Number]:
    """`low:high` as two numbers."""
    low, _, high = text.partition(":")
    try:
        return number(low), number(high)
    except ValueError as error:
        raise UsageError(f"{option} {text} is not LOW:HIGH.", f"Write for example {option} 0:50.") from error
