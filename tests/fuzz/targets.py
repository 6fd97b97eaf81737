"""The parsers that are fuzzed: one entry each. Text files are here, binary ones in `binary_targets.py`."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path

from rich.console import Console

from monitoring.dashboard import frame, line
from monitoring.live import LiveRun
from monitoring.pipeline_summary import build_summary
from pokevla.cli.pipelines.pipeline import read_stages
from pokevla.data.dataset import open_dataset
from pokevla.data.records import parse_boxes, parse_choice, parse_points
from pokevla.evaluation.trial_records import TrialRecord, append_record, read_records
from pokevla.files.checksums import with_checksum
from pokevla.jobs.pieces import read_piece, write_pieces
from pokevla.jobs.profile import load_profile
from pokevla.jobs.record import JobRecord, add_job, read_jobs
from pokevla.recipe.checking.datasets import count_usable, read_dataset_info
from pokevla.recipe.dump import dump_recipe
from pokevla.recipe.load import load_recipe
from pokevla.runs.checkpoints import read_info
from pokevla.telemetry.follow import JsonlFollower
from pokevla.telemetry.heartbeat import beat, hang_report, read_heartbeats
from pokevla.telemetry.jsonl import JsonlWriter, read_jsonl
from pokevla.telemetry.manifest import add_restart, write_manifest
from tests.fuzz import binary_targets
from tests.fuzz.target import Target
from tests.toys import PRETRAIN_RECIPE, RECIPE, write_toy_dataset
from tests.unit.monitoring.run_folders import append, event, make_run, save, train_line

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"HOME": "/somewhere", "DATA": "/data", "POKEVLA_DEMO": "/demo"}


def _recipes(_folder: Path) -> list[bytes]:
    names = {"name": "a", "output": "runs", "dataset": "d", "cache": "c"}
    texts = [RECIPE.format(**names), PRETRAIN_RECIPE.format(**names)]
    texts += [path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "recipes/demo").glob("*.yaml"))]
    return [text.encode() for text in texts if "extends:" not in text]


def _recipe(folder: Path, content: bytes) -> None:
    """A recipe that loads is the same after it was dumped and loaded again."""
    path = folder / "a.yaml"
    path.write_bytes(content)
    loaded = load_recipe(path, (), ENVIRONMENT)
    path.write_text(dump_recipe(loaded), encoding="utf-8")
    if load_recipe(path, (), ENVIRONMENT).recipe != loaded.recipe:
        raise AssertionError("the dumped recipe differs")


def _overrides(folder: Path) -> list[bytes]:
    (folder / "a.yaml").write_bytes(_recipes(folder)[0])
    return [
        b"optim.lr=3e-4",
        b"data.datasets.0.path=x",
        b"zero={stage: 1}",
        b"name='b'",
        b"lora.rank=8",
        b"steps=9",
    ]


def _override(folder: Path, content: bytes) -> None:
    load_recipe(folder / "a.yaml", [os.fsdecode(content)], ENVIRONMENT)


def _profiles(_folder: Path) -> list[bytes]:
    files = sorted((REPOSITORY / "slurm/profiles").glob("*.yaml"))
    return [content for path in files if b"extends:" not in (content := path.read_bytes())]


def _profile(folder: Path, content: bytes) -> None:
    (folder / "p.yaml").write_bytes(content)
    load_profile(str(folder / "p.yaml"), ENVIRONMENT)


def _dataset(folder: Path) -> list[bytes]:
    return [(write_toy_dataset(folder / "d", episodes=3) / "dataset.json").read_bytes()]


def _dataset_info(folder: Path, content: bytes) -> None:
    (folder / "d" / "dataset.json").write_bytes(content)
    count_usable(read_dataset_info(folder / "d"), "train", 8)
    dataset = open_dataset(folder / "d")
    assert dataset.num_views >= 0
    assert all(isinstance(name, str) for name in [*dataset.shard_names, *dataset.fields])


def _run(folder: Path) -> Path:
    run = make_run(folder / "run")
    append(run / "metrics.jsonl", *(train_line(step, step) for step in range(1, 9)))
    append(
        run / "events.jsonl", event("started", 0), event("saved", 5, step=4, save_s=0.5), event("stopped", 9, step=8)
    )
    beat(run, rank=0, host="h", step=5, phase="forward", phase_s=1.0, progress=9, every_s=10.0)
    return run


def _watch(run: Path) -> None:
    snapshot = LiveRun(run, clock=lambda: 1_790_000_100.0).snapshot(None)
    line(snapshot)
    Console(file=io.StringIO(), width=80).print(frame(snapshot, 80))
    json.dumps(snapshot.to_dict())


def _heartbeats(folder: Path) -> list[bytes]:
    return [(_run(folder) / "heartbeat" / "rank_00000.json").read_bytes()]


def _heartbeat(folder: Path, content: bytes) -> None:
    (folder / "run" / "heartbeat" / "rank_00000.json").write_bytes(content)
    read_heartbeats(folder / "run")
    hang_report(folder / "run")
    _watch(folder / "run")


def _metrics(folder: Path) -> list[bytes]:
    return [(_run(folder) / "metrics.jsonl").read_bytes()]


def _metrics_lines(folder: Path, content: bytes) -> None:
    """A run goes on with any metrics, and is watched; only a tool that needs every line may refuse."""
    path = folder / "run" / "metrics.jsonl"
    path.write_bytes(content)
    JsonlFollower(path, 1000).read_all()
    _watch(folder / "run")
    with JsonlWriter(path, resume_step=5) as writer:
        writer.write({"step": 6})
    read_jsonl(path)


def _events(folder: Path) -> list[bytes]:
    return [(_run(folder) / "events.jsonl").read_bytes()]


def _event_lines(folder: Path, content: bytes) -> None:
    (folder / "run" / "events.jsonl").write_bytes(content)
    _watch(folder / "run")


def _jobs(folder: Path) -> list[bytes]:
    add_job(folder, JobRecord("12", "walk", "2026-01-01T00:00:00+00:00", "", "", ("11",), ("before",), 1, 2, 9, 9, 0))
    return [(folder / "slurm.json").read_bytes()]


def _job_record(folder: Path, content: bytes) -> None:
    (folder / "slurm.json").write_bytes(content)
    read_jobs(folder)


def _manifests(folder: Path) -> list[bytes]:
    write_manifest(folder, {"datasets": {"d": "f"}})
    return [(folder / "manifest.json").read_bytes()]


def _manifest(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    add_restart(folder, 4)


def _stages(folder: Path) -> list[bytes]:
    stage = {"name": "a", "command": "pokevla train a.yaml", "fingerprint": "f", "seconds": 1.5, "peak_memory_gib": 0.5}
    return [json.dumps({"stages": [stage, {**stage, "name": "b", "commit": None}]}).encode()]


def _stages_file(folder: Path, content: bytes) -> None:
    (folder / "stages.json").write_bytes(content)
    read_stages(folder)
    build_summary(folder)


def _pieces(folder: Path) -> list[bytes]:
    write_pieces(folder, (("a", "b"), ("c",)))
    return [(folder / "pieces.json").read_bytes()]


def _piece(folder: Path, content: bytes) -> None:
    (folder / "pieces.json").write_bytes(content)
    read_piece(folder, 0)


def _trials(folder: Path) -> list[bytes]:
    record = TrialRecord("p", "libero_object", 3, "pick up", 0, 1, (0.01, 0.02), "success", 120, 15, 3.5)
    for trial in range(3):
        append_record(folder / "episodes.jsonl", dataclasses.replace(record, trial=trial))
    return [(folder / "episodes.jsonl").read_bytes()]


def _trial_records(folder: Path, content: bytes) -> None:
    (folder / "episodes.jsonl").write_bytes(content)
    for record in read_records(folder / "episodes.jsonl"):
        assert record.key


def _checkpoints(folder: Path) -> list[bytes]:
    run = make_run(folder / "run")
    return [(save(run, 4) / "COMPLETE.json").read_bytes()]


def _checkpoint(folder: Path, content: bytes) -> None:
    marker = folder / "run" / "checkpoints" / "step-00000004" / "COMPLETE.json"
    marker.write_bytes(content)
    assert read_info(marker.parent).size_bytes >= 0


def _rewrite_checksum(content: bytes) -> bytes:
    try:
        values = json.loads(content)
        values.pop("checksum", None)
        return json.dumps(with_checksum(values)).encode()
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return content


def _answers(_folder: Path) -> list[bytes]:
    return [b"[(0.412, 0.633), (0.1, 0.2)]", b"[(0.100, 0.200, 0.350, 0.480)]", b"(B) left", b"A."]


def _answer(_folder: Path, content: bytes) -> None:
    text = content.decode(errors="replace")
    parse_choice(text)
    for place in [*parse_points(text), *parse_boxes(text)]:
        assert 0.0 <= min(place) <= max(place) <= 1.0


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("recipe", _recipes, _recipe),
        Target("overrides", _overrides, _override),
        Target("profile", _profiles, _profile),
        Target("dataset_json", _dataset, _dataset_info, is_json=True, repair=_rewrite_checksum),
        Target("heartbeat", _heartbeats, _heartbeat, is_json=True),
        Target("metrics", _metrics, _metrics_lines, is_json=True),
        Target("events", _events, _event_lines, is_json=True),
        Target("job_record", _jobs, _job_record, is_json=True),
        Target("run_manifest", _manifests, _manifest, is_json=True),
        Target("stages", _stages, _stages_file, is_json=True),
        Target("pieces", _pieces, _piece, is_json=True),
        Target("trial_records", _trials, _trial_records, is_json=True),
        Target("complete_json", _checkpoints, _checkpoint, is_json=True, repair=_rewrite_checksum),
        Target("predicted_answers", _answers, _answer),
        *binary_targets.TARGETS,
    )
}
