"""Two runs beside each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monitoring.comparison import compare, differing_settings, short_names
from monitoring.report.inputs import read_inputs
from monitoring.report.page import write_report
from tests.unit.monitoring.run_folders import append, make_run, train_line


def trained(folder: Path, lr: float = 1e-3, packages: dict[str, str] | None = None) -> Path:
    run_dir = make_run(folder, lr=lr, packages=packages or {"torch": "2.14.1"})
    kept = ("step", "position", "loss", "lr", "tflops_per_rank")  # each figure is a chart, and drawing takes a second
    lines = ({name: train_line(step, step)[name] for name in kept} for step in range(10, 60, 10))
    append(run_dir / "metrics.jsonl", *lines)
    return run_dir


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("compared")
    return [trained(folder / "slow", lr=1e-4), trained(folder / "fast", lr=3e-4, packages={"torch": "2.15.0"})]


def test_only_what_differs_is_listed(two: list[Path]) -> None:
    rows = differing_settings(read_inputs(two).runs)
    assert rows == [("optim.lr", ["0.0001", "0.0003"]), ("package torch", ["2.14.1", "2.15.0"])]


def test_a_setting_that_one_run_lacks_is_shown_as_absent(tmp_path: Path) -> None:
    with_two = trained(tmp_path / "b")
    text = (with_two / "recipe.yaml").read_text().replace("[{path: d}]", "[{path: d}, {path: e}]")
    (with_two / "recipe.yaml").write_text(text)
    rows = dict(differing_settings(read_inputs([trained(tmp_path / "a"), with_two]).runs))
    assert rows["data.datasets.1.path"] == ["-", "e"]


def test_every_figure_has_one_chart_with_a_curve_for_each_run(two: list[Path]) -> None:
    (comparison,) = compare(read_inputs(two).runs)
    assert [title for title, _ in comparison.charts] == ["loss", "Learning rate, as applied", "Speed of a rank"]
    for title, plot in comparison.charts:
        assert [curve.colour for curve in plot.curves] == comparison.colours, title


def test_runs_of_different_kinds_are_not_compared(pipeline: Path) -> None:
    assert compare(read_inputs([pipeline]).runs) == []


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = read_inputs([trained(tmp_path / "monday" / "run"), trained(tmp_path / "friday" / "run")]).runs
    assert short_names(runs) == ["monday/run", "friday/run"]


def test_the_report_of_two_runs_shows_what_differs_and_both_curves(two: list[Path], tmp_path: Path) -> None:
    page = write_report(two, tmp_path / "report.html").read_text()
    assert "2 runs compared" in page
    assert re.search(r"<code>optim\.lr</code></td><td[^>]*>0\.0001</td><td[^>]*>0\.0003</td>", page)
    assert page.count("of all runs over steps") == 3


def test_one_run_is_compared_with_nothing(two: list[Path]) -> None:
    assert compare(read_inputs(two[:1]).runs) == []
