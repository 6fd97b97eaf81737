"""Our results beside the paper's: what is shown, what is missing, and what differs."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pokevla.errors import DataError, UsageError
from pokevla.evaluation.comparing.folders import Evaluated, read_policies
from pokevla.evaluation.paper_tables.paper import get_table
from pokevla.evaluation.paper_tables.rendering import MISSING, as_csv, as_html, as_markdown
from pokevla.evaluation.paper_tables.results import ResultTable, result_tables
from pokevla.evaluation.statistics.intervals import wilson_interval
from tests.unit.evaluation.comparing.evaluations import records, write_evaluation

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
KINDS = tuple(get_table("V").perturbations.values())


def evaluated(folder: Path, *trials, **settings) -> list[Evaluated]:
    return read_policies(write_evaluation(folder, [record for part in trials for record in part], **settings))


def four_suites(tmp_path: Path, policy: str = "pokevla", outcomes: str = "+++-") -> list[Evaluated]:
    """An evaluation for each suite, as the recipes make them."""
    return [
        one
        for suite in SUITES
        for one in evaluated(tmp_path / suite, records(policy, outcomes, suite=suite), suite=suite)
    ]


def perturbed(tmp_path: Path, policy: str, kinds: tuple[str, ...], **settings) -> list[Evaluated]:
    return evaluated(
        tmp_path / policy,
        *(
            records(policy, "+-", suite=suite, task=10 * place + number, perturbation=kind, level=1)
            for place, suite in enumerate(SUITES)
            for number, kind in enumerate(kinds)
        ),
        **settings,
    )


def row_of(text: str, name: str) -> list[str]:
    """Cells of the Markdown row that begins with `name`."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_suites_evaluated_in_folders_of_their_own_make_one_row_with_a_total(tmp_path: Path) -> None:
    (table,) = result_tables(four_suites(tmp_path))
    assert table.paper.name == "IV"
    (row,) = table.rows
    assert [(cell.successes, cell.trials) for cell in row.cells if cell] == [(3, 4)] * 4 + [(12, 16)]
    assert (row.cells[-1].low, row.cells[-1].high) == wilson_interval(12, 16)  # pyright: ignore
    text = as_markdown([table])
    assert row_of(text, "PokeVLA (1.22 B)") == ["99.6", "99.6", "98.4", "95.2", "98.2"]
    assert row_of(text, "ours: pokevla")[0] == "75.0 (30.1 to 95.4)"
    assert row_of(text, "ours: pokevla, minus paper (PokeVLA (1.22 B))") == [
        "-24.6",
        "-24.6",
        "-23.4",
        "-20.2",
        "-23.2",
    ]


def test_a_missing_suite_is_missing_and_so_is_the_total(tmp_path: Path) -> None:
    tables = result_tables(four_suites(tmp_path)[:3])
    assert row_of(as_markdown(tables), "ours: pokevla")[3:] == [MISSING, MISSING]
    figures = [line for line in csv.DictReader(io.StringIO(as_csv(tables))) if line["source"] == "ours"]
    assert [line["percent"] for line in figures] == ["75.0", "75.0", "75.0", "", ""]


def test_perturbed_trials_go_to_table_v_and_never_to_table_iv(tmp_path: Path) -> None:
    both = [*four_suites(tmp_path), *perturbed(tmp_path, "pokevla_plus", KINDS)]
    tables = result_tables(both)
    assert [(table.paper.name, [row.policy for row in table.rows]) for table in tables] == [
        ("IV", ["pokevla"]), ("V", ["pokevla_plus"]),
    ]  # fmt: skip
    (row,) = tables[1].rows
    assert [cell.trials for cell in row.cells if cell] == [14] * 4 + [8] * 7 + [56]


def test_perturbations_that_were_not_run_are_missing_and_said_to_be(tmp_path: Path) -> None:
    kinds = tuple(kind for kind in KINDS if kind not in ("Light Conditions", "Background Textures"))
    (table,) = result_tables(perturbed(tmp_path, "mine", kinds))
    cells = dict(zip(table.paper.columns, table.rows[0].cells, strict=True))
    assert [title for title, cell in cells.items() if cell is None] == ["Light", "Background", "Total"]
    assert any("mine: no trials of Light Conditions, Background Textures" in line for line in table.differences)


def test_ablations_are_recognised_by_name_or_by_what_the_user_says(tmp_path: Path) -> None:
    trials = perturbed(tmp_path, "without_grounding", KINDS)
    assert [table.paper.name for table in result_tables(trials)] == ["V", "VII"]
    mine = perturbed(tmp_path, "mine", KINDS)
    assert [table.paper.name for table in result_tables(mine, counterparts={"mine": "full"})] == ["V", "VI"]
    (table,) = result_tables(mine, ["VI"], {"mine": "full"})
    assert row_of(as_markdown([table]), "ours: mine, minus paper (+ Pre-training + Geometry + Goal)")[0] == "-38.8"


def lines_of(tmp_path: Path, outcomes: str = "+++-", **settings: object) -> str:
    (table,) = result_tables(evaluated(tmp_path / "x", records("pokevla", outcomes), **settings))
    return "\n".join(table.differences)


def test_what_differs_is_said_line_by_line(tmp_path: Path) -> None:
    lines = lines_of(
        tmp_path, "+++-x", fast_rendering=True, image_size=128, mujoco="3.17.0", target_shift_m=[0.0, 0.04],
        max_steps=200, settle_steps=5, until={"max": 5}, policies={"pokevla": "blanked"},
    )  # fmt: skip
    for sentence in (
        "libero_goal: 5 trials of a policy; the paper has 500.",
        "1 trial crashed and counts neither",
        "Fast rendering",
        "Pictures of 128 px",
        "MuJoCo 3.17.0, which renders darker",
        "target object was moved",
        "At most 200 steps in libero_goal; OpenVLA-OFT's protocol has 300",
        "5 idle steps",
        "Trials could end early",
        "baseline of kind blanked",
        "Cabinet and stove stand as in the first trial",
    ):
        assert sentence in lines


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"instructions": "filename"}, "Instructions are file names as in the official code"),
        ({"instructions": "clean"}, "Instructions are those of the base tasks; the official code takes file names"),
        ({"instructions": "bddl"}, "Instructions are those of the task files; the official code takes file names"),
        ({"robot_init": "full"}, "Perturbed joints are kept in Robot Initial States"),
        ({"unavailable_tasks": [{"task": 3}, {"task": 5}]}, "2 tasks could not be run"),
        (
            {"max_steps": {"libero_goal": 300, "libero_10": 600}},
            "At most 600 steps in libero_10; OpenVLA-OFT's protocol has 520",
        ),
    ],
)
def test_what_differs_in_libero_plus(tmp_path: Path, settings: dict[str, object], sentence: str) -> None:
    (table,) = result_tables(perturbed(tmp_path, "mine", KINDS, **settings))
    assert any(line.startswith(sentence) for line in table.differences)


def test_what_equals_the_protocol_is_not_mentioned(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, "+" * 500, fixtures="per_trial")
    assert lines.splitlines() == ["MuJoCo 3.3.2; the paper does not name its own."]


def test_a_difference_of_some_folders_names_them(tmp_path: Path) -> None:
    one = evaluated(tmp_path / "one", records("pokevla", "+", suite="libero_10"), max_steps=520)
    fast = evaluated(tmp_path / "fast", records("pokevla", "+"), fast_rendering=True)
    (table,) = result_tables([*one, *fast])
    assert f"Fast rendering, whose pixels differ ({tmp_path / 'fast'})." in table.differences


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    one = evaluated(tmp_path / "one", records("pokevla", "+"))
    with pytest.raises(DataError, match="twice, the second time in"):
        result_tables([*one, *evaluated(tmp_path / "again", records("pokevla", "-"))])
    with pytest.raises(UsageError, match="evaluated in my_robot"):
        result_tables(evaluated(tmp_path / "robot", records("pokevla", "+"), environment="my_robot"))
    with pytest.raises(UsageError, match="None of the trials belongs into a table"):
        result_tables(evaluated(tmp_path / "ninety", records("pokevla", "+", suite="libero_90")))
    with pytest.raises(UsageError, match="--as other=full: no such policy"):
        result_tables(one, counterparts={"other": "full"})
    with pytest.raises(UsageError, match="--as pokevla=fulll: no such row"):
        result_tables(one, counterparts={"pokevla": "fulll"})


def test_requested_table_without_trials_shows_the_paper_alone(tmp_path: Path) -> None:
    (table,) = result_tables(evaluated(tmp_path / "one", records("pokevla", "+")), ["V"])
    assert table.rows == ()
    assert "ours:" not in as_markdown([table]).split("## ")[1]


class Cells(HTMLParser):
    """Texts of the cells of a page, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def tables_with_odd_name(tmp_path: Path) -> list[ResultTable]:
    return result_tables(four_suites(tmp_path, policy="a|b <i>"))


def test_html_is_one_page_in_which_names_are_text(tmp_path: Path) -> None:
    page = as_html(tables_with_odd_name(tmp_path))
    parser = Cells()
    parser.feed(page)
    assert "ours: a|b <i>" in parser.texts
    assert "75.0 (30.1 to 95.4)" in parser.texts
    assert "i" not in parser.tags
    assert not {"script", "link", "img"} & set(parser.tags)
    assert parser.tags.count("tr") == 1 + 15 + 1


def test_markdown_rows_have_one_cell_for_each_column_whatever_a_policy_is_called(tmp_path: Path) -> None:
    text = as_markdown(tables_with_odd_name(tmp_path))
    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {7}
