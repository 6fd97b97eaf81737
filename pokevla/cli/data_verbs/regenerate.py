"""`pokevla data regenerate`: replay published demonstrations as OpenVLA-OFT does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pokevla.cli.data_verbs.converters import AlignmentOption
from pokevla.cli.data_verbs.masks import replay_sources
from pokevla.cli.progress import progress


def regenerate(
    source: Annotated[Path, typer.Argument(help="LIBERO demonstration HDF5 file, or a directory of them.")],
    out: Annotated[Path, typer.Argument(help="Directory for the new files: OUT/<suite>/<file name>.")],
    image_size: Annotated[int, typer.Option(min=16, max=1024, help="Side of the images in pixels.")] = 256,
    masks: Annotated[bool, typer.Option(help="Draw instance masks of both views too.")] = True,
    fast_rendering: Annotated[
        bool,
        typer.Option(
            "--fast-rendering",
            help="Without anti-aliasing and reflections, simplified meshes: faster, but not what published ones see.",
        ),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Simulator processes; the result does not depend on it.")] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that OUT already holds.")] = False,
    alignment: AlignmentOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay LIBERO demonstrations: new images and masks, no idle actions, only episodes that succeed.

    A command that was killed goes on after its finished episodes.
    """
    from pokevla.simulation.recordings.regenerated_files import regenerate as replay
    from pokevla.simulation.recordings.regenerated_files import suite_counts
    from pokevla.simulation.recordings.regeneration import RegenerationSettings

    files = replay_sources(source, out, alignment.value if alignment is not None else None)
    with progress("episodes") as listen:
        reports = replay(
            files,
            RegenerationSettings(image_size, masks, fast_rendering),
            workers,
            overwrite=overwrite,
            on_progress=lambda done, left_out, total: listen(done, total, left_out),
        )
    counts = suite_counts(reports)
    if as_json:
        suites = {suite: {"kept": kept, "published": published} for suite, (kept, published) in counts.items()}
        typer.echo(json.dumps({"files": [report.to_dict() for report in reports], "suites": suites}))
        return
    for report in reports:
        how = "already done" if report.is_earlier else "written"
        typer.echo(
            f"{report.path}: {report.kept} episodes of {report.kept + len(report.left_out)} with {report.rows} rows "
            f"({report.noops} idle actions dropped), {how}"
        )
        for demo, complaint in report.left_out.items():
            typer.echo(f"  left out {demo}: {complaint}")
    for suite, (kept, published) in counts.items():
        typer.echo(f"{suite}: {kept} of 500 episodes kept; OpenVLA kept {published}.")
