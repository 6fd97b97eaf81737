"""The progress of a run is read from its metrics."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

from rich.console import Console

from pokevla.training.progress import ProgressView


def append(path: Path, *rows: dict) -> None:
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def test_new_lines_are_printed_once_and_old_ones_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, {"step": 1, "loss": 9.0})
    out = io.StringIO()
    with ProgressView(tmp_path, 10, Console(file=out)) as view:
        append(path, {"step": 2, "loss": 0.5, "lr": 1e-3})
        view.update()
        view.update()
        with path.open("a") as file:
            file.write('{"step": 3, "lo')  # an incomplete line
        view.update()
        with path.open("a") as file:
            file.write('ss": null}\n')
        append(path, {"step": 3, "save_blocked_s": 0.1})  # nothing that is shown
        view.update()
    assert out.getvalue().splitlines() == ["step 2/10  loss 0.5  lr 0.001", "step 3/10"]


def test_a_file_that_a_resume_has_cut_is_followed_from_its_new_end(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append(path, *({"step": step, "loss": 1.0} for step in range(9)))
    out = io.StringIO()
    with ProgressView(tmp_path, 10, Console(file=out)) as view:
        path.write_text("")
        append(path, {"step": 0, "loss": 1.0})
        view.update()
        append(path, {"step": 1, "loss": 1.0})
        view.update()
    assert out.getvalue().splitlines() == ["step 1/10  loss 1"]


def test_every_line_after_the_first_says_when_the_run_ends(tmp_path: Path) -> None:
    out = io.StringIO()
    with ProgressView(tmp_path, 1250, Console(file=out)) as view:
        times = ("2026-11-29T10:00:00+00:00", "2026-11-29T10:00:40+00:00")
        append(
            tmp_path / "metrics.jsonl", *({"step": 100 + 20 * n, "loss": 1, "time": at} for n, at in enumerate(times))
        )
        view.update()
        append(tmp_path / "metrics.jsonl", {"step": 120, "val/loss": 2.0}, {"step": 1250, "loss": 1, "step_s": 2.0})
        view.update()
    assert out.getvalue().splitlines() == [
        "step 100/1250  loss 1",
        "step 120/1250  loss 1  ETA 37 min 40 s",
        "step 120/1250  val/loss 2",
        "step 1250/1250  loss 1",
    ]


def test_lines_are_printed_whole_and_not_read_as_markup(tmp_path: Path) -> None:
    out = io.StringIO()
    with ProgressView(tmp_path, 10, Console(file=out, width=20)) as view:
        view.print_line("run     runs/a [bold]x[/bold] " + 40 * "y")
    assert out.getvalue() == "run     runs/a [bold]x[/bold] " + 40 * "y" + "\n"


def test_a_file_that_cannot_be_read_shows_nothing_until_the_run_has_set_it_aside(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(path)
    out = io.StringIO()
    with ProgressView(tmp_path, 10, Console(file=out)) as view:
        view.update()
        path.rename(tmp_path / "metrics.jsonl.damaged")
        append(path, {"step": 2, "loss": 0.5, "lr": 1e-3})
        view.update()
    assert out.getvalue().splitlines() == ["step 2/10  loss 0.5  lr 0.001"]
