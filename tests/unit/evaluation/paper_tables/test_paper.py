"""The paper's figures as data: internally consistent, and those that its text quotes."""

from __future__ import annotations

import pytest

from pokevla.errors import UsageError
from pokevla.evaluation.paper_tables.paper import PaperTable, get_table, paper_tables

LIBERO_PLUS = {"libero_spatial": 2402, "libero_object": 2518, "libero_goal": 2591, "libero_10": 2519}


def figure(table: str, row_id: str, column: str) -> float:
    row = get_table(table).row(row_id)
    assert row is not None
    return row.percent[get_table(table).columns.index(column)]


@pytest.mark.parametrize("table", paper_tables().values(), ids=lambda table: table.name)
def test_every_row_has_a_figure_for_every_column(table: PaperTable) -> None:
    assert len(table.rows) == {"IV": 15, "V": 13, "VI": 5, "VII": 5}[table.name]
    assert len(table.columns) == (12 if table.perturbed else 5)
    assert len({row.id for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert len(row.percent) == len(table.columns)
        assert all(0 <= value <= 100 for value in row.percent)


def test_totals_of_pokevla_are_the_means_of_its_suites_weighted_by_trials() -> None:
    for name, row_id in (("IV", "pokevla"), ("V", "pokevla_transfer"), ("V", "pokevla_plus"), ("VI", "full")):
        table = get_table(name)
        row = table.row(row_id)
        assert row is not None
        weights = [table.trials[suite] for suite in table.suites.values()]
        mean = sum(w * p for w, p in zip(weights, row.percent, strict=False)) / sum(weights)
        assert row.percent[-1] == pytest.approx(mean, abs=0.15)
    assert dict(get_table("V").trials) == LIBERO_PLUS


def test_figures_that_the_text_of_the_paper_quotes() -> None:
    assert figure("IV", "pokevla", "Long") == 95.2
    assert figure("IV", "worldvla", "Long") == 54.1
    assert figure("V", "pokevla_plus", "Robot") == 52.9
    assert figure("V", "pokevla_transfer", "Total") == 79.3
    assert figure("V", "openvla_oft_transfer", "Camera") == 56.4
    assert figure("VI", "segmentation", "Light") == 99.7
    assert figure("VI", "geometry", "Long") == 81.4
    assert figure("VI", "pretraining", "Total") == 82.9
    assert figure("VII", "without_affordance", "Robot") == 39.7
    assert figure("VII", "without_reasoning", "Language") == 66.9


def test_a_table_of_another_number_is_refused() -> None:
    assert get_table("iv").name == "IV"
    with pytest.raises(UsageError, match=r"no table 'IX'\. Tables: IV, V, VI, VII"):
        get_table("IX")
