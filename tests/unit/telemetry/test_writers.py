"""metrics.jsonl, TensorBoard, Weights & Biases, and sinks of others."""

import struct
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pokevla.parts import METRIC_SINKS
from pokevla.telemetry.jsonl import read_jsonl
from pokevla.telemetry.writers import MetricWriter


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, round(event.value, 6)) for event in events.Scalars(name)]


def test_metrics_go_to_both_places(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path)
    writer.write({"step": 1, "loss": 0.5, "loss/action": 0.25, "note": "text"})
    writer.close()

    (row,) = read_jsonl(tmp_path / "metrics.jsonl")
    assert (row["step"], row["loss"], row["note"]) == (1, 0.5, "text")
    assert "time" in row
    assert scalars(tmp_path / "tensorboard", "loss/action") == [(1, 0.25)]


def test_resumed_curves_do_not_fold_back(tmp_path: Path) -> None:
    first = MetricWriter(tmp_path)
    for step in (1, 2, 3):
        first.write({"step": step, "loss": 1.0})
    first.close()

    second = MetricWriter(tmp_path, resume_step=1)
    second.write({"step": 2, "loss": 2.0})
    second.close()

    assert scalars(tmp_path / "tensorboard", "loss") == [(1, 1.0), (2, 2.0)]
    assert [row["loss"] for row in read_jsonl(tmp_path / "metrics.jsonl")] == [1.0, 2.0]


def test_a_curve_that_starts_again_does_not_fold_back(tmp_path: Path) -> None:
    """Killed before its first checkpoint, then killed again: each start hides what the one before had drawn."""
    for start, value in ((0, 1.0), (0, 2.0), (2, 3.0)):
        writer = MetricWriter(tmp_path, resume_step=start)
        for step in range(start + 1, start + 4):
            writer.write({"step": step, "loss": value})
        writer.close()
    assert scalars(tmp_path / "tensorboard", "loss") == [(1, 2.0), (2, 2.0), (3, 3.0), (4, 3.0), (5, 3.0)]


def test_what_was_flushed_survives_a_kill(tmp_path: Path) -> None:
    """TensorBoard's writer holds events back; a checkpoint must not be ahead of its curves."""
    writer = MetricWriter(tmp_path)
    writer.write({"step": 1, "loss": 0.5})
    writer.flush()
    assert scalars(tmp_path / "tensorboard", "loss") == [(1, 0.5)]
    writer.close()


def test_a_sink_of_another_package_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Recorder:
        def __init__(self, run_dir: Path, resume_step: int | None) -> None:
            calls.append(("opened", run_dir, resume_step))

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: calls.append((name, *arguments))

    monkeypatch.setitem(METRIC_SINKS, "recorder", Recorder)
    writer = MetricWriter(tmp_path, resume_step=3, sinks=["jsonl", "recorder"])
    writer.write({"step": 4, "loss": 0.5})
    writer.close()

    assert calls[0] == ("opened", tmp_path, 3)
    assert [name for name, *_ in calls] == ["opened", "write", "flush", "close"]
    assert read_jsonl(tmp_path / "metrics.jsonl") == [calls[1][1]]
    assert not (tmp_path / "tensorboard").exists()


def test_weights_and_biases_keeps_one_run_over_a_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for start in (0, 2):
        writer = MetricWriter(tmp_path, resume_step=start, sinks=["jsonl", "wandb"])
        writer.describe({"optim.lr": 1e-4}, {"recipe.yaml": "a: 1"}, start)
        for step in (start + 1, start + 2):
            writer.write({"step": step, "loss": 1.0 / step, "note": "text"})
        writer.finish()
        writer.close()
    run_id = (tmp_path / "wandb_id").read_text()
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert [path.name for path in files] == [f"run-{run_id}.wandb"] * 2
    assert [logged_losses(path) for path in files] == [[1.0, 1 / 2], [1 / 3, 1 / 4]]


def logged_losses(path: Path) -> list[float]:
    """The values of `loss` in an offline file: records of protobuf in LevelDB's log format, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportMissingImports]

    content, place, payload, losses = path.read_bytes(), 7, b"", []
    while place < len(content):
        if 32768 - place % 32768 < 7:  # no room for a header
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        payload += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            items = Record.FromString(payload).history.item
            losses += [float(item.value_json) for item in items if "loss" in (item.key, *item.nested_key)]
            payload = b""
    return losses


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path, rank=1)
    writer.write({"step": 1, "loss": 0.5})
    writer.close()

    assert list(tmp_path.iterdir()) == []
