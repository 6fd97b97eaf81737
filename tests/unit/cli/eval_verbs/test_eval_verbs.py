"""`pokevla eval`, and the verbs that stand in place of a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.cli import main
from tests.unit.evaluation.comparing.evaluations import records, write_evaluation

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    a = write_evaluation(tmp_path / "a", records("one", "+" * 10 + "-+x"))
    b = write_evaluation(tmp_path / "b", records("other", "-" * 10 + "-++"))
    return str(a), str(b)


def test_a_recipe_is_evaluated_as_before(tmp_path: Path, capsys: Capture) -> None:
    """The first word is a recipe unless it is a verb: here one that does not exist."""
    assert main.run(["eval", str(tmp_path / "none.yaml"), "workers=1"]) == 2
    assert "none.yaml does not exist" in capsys.readouterr().err
    assert main.run(["eval"]) == 2
    assert "Missing argument 'recipe'. See `pokevla eval --help`." in capsys.readouterr().err


def test_help_of_eval_has_its_options_and_the_verbs(capsys: Capture) -> None:
    assert main.run(["eval", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("--overwrite", "compare", "power", "tables"))
    assert main.run(["eval", "compare", "--help"]) == 0
    assert "pokevla eval compare" in capsys.readouterr().out


def test_comparison_is_printed_with_one_sentence(folders: tuple[str, str], capsys: Capture) -> None:
    assert main.run(["eval", "compare", *folders]) == 0
    text = capsys.readouterr().out
    assert "one against other: same trials, exact McNemar test" in text
    assert "11/12 = 91.7%" in text
    assert "Left out: 1 because the simulator crashed." in text
    assert "one is better than other: one solves 11 of 12 (91.7%), other 1 of 12 (8.3%)" in text


def test_comparison_as_json(folders: tuple[str, str], capsys: Capture) -> None:
    assert main.run(["eval", "compare", *folders, "--json", "--alpha", "0.01"]) == 0
    content = json.loads(capsys.readouterr().out)
    (total,) = content["rows"]
    assert (content["paired"], content["alpha"], content["crashed"]) == (True, 0.01, 1)
    assert (total["only_a"], total["only_b"], total["a"]["rate"]) == (10, 0, 11 / 12)
    assert content["verdict"].startswith("one is better")


def test_other_settings_end_with_a_usage_error_unless_unpaired(tmp_path: Path, capsys: Capture) -> None:
    a = write_evaluation(tmp_path / "a", records("one", "++"))
    b = write_evaluation(tmp_path / "b", records("other", "+-"), seed=8)
    assert main.run(["eval", "compare", str(a), str(b)]) == 2
    assert "seed: 7, 8" in capsys.readouterr().err
    assert main.run(["eval", "compare", str(a), str(b), "--unpaired"]) == 0
    text = capsys.readouterr().out
    assert "different trials, Barnard's test" in text
    assert "The settings differ in seed: 7, 8." in text


def test_power_gives_numbers_of_trials_and_differences(capsys: Capture) -> None:
    assert main.run(["eval", "power", "--difference", "0.05", "--rate", "0.9", "--agreement", "0.9"]) == 0
    text = capsys.readouterr().out
    assert "337 trials of both policies" in text
    assert "435 trials of each policy" in text
    assert main.run(["eval", "power", "--trials", "100", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [row["trials"] for row in content["detectable"]] == [100]
    assert content["agreement"] == 0.86


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "0.98"], "success rates of 0.98 and 1.03 are not both in [0, 1]"),
        (["--agreement", "0.2"], "an agreement of 0.2 is outside [0.85, 0.95]"),
        (["--power", "1"], "a power of 1 is not in (0, 1)"),
        (["--alpha", "0"], "alpha 0 is not in (0, 1)"),
        (["--difference", "0"], "a difference of 0 cannot be found"),
    ],
)
def test_power_of_what_cannot_be_is_a_usage_error(options: list[str], message: str, capsys: Capture) -> None:
    assert main.run(["eval", "power", *options]) == 2
    assert message in capsys.readouterr().err


def test_tables_are_printed_or_written_in_three_formats(
    tmp_path: Path, folders: tuple[str, str], capsys: Capture
) -> None:
    assert main.run(["eval", "tables", *folders]) == 0
    text = capsys.readouterr().out
    assert "## Table IV: LIBERO (PokeVLA, arXiv 2604.20834)" in text
    assert "libero_goal: 13 trials of a policy; the paper has 500." in text
    out = tmp_path / "tables"
    assert main.run(["eval", "tables", *folders, "--out", str(out), "--as", "one=pokevla"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["tables.csv", "tables.html", "tables.md"]
    assert "ours: one, minus paper" in (out / "tables.md").read_text()
    assert main.run(["eval", "tables", folders[0], "--out", str(out)]) == 0  # replaces its own
    (out / "tables.md").write_text("my notes")
    assert main.run(["eval", "tables", folders[0], "--out", str(out)]) == 3
    assert (out / "tables.md").read_text() == "my notes"
    assert "is not a table of pokevla" in capsys.readouterr().err


def test_tables_of_wrong_options_are_usage_errors(folders: tuple[str, str], capsys: Capture) -> None:
    assert main.run(["eval", "tables", folders[0], "--as", "one"]) == 2
    assert "--as one: not POLICY=ROW" in capsys.readouterr().err
    assert main.run(["eval", "tables", folders[0], "--table", "XI"]) == 2
    assert "no table 'XI'" in capsys.readouterr().err


def test_suites_have_rows_with_corrected_p_values(tmp_path: Path, capsys: Capture) -> None:
    sides = {"one": ("+" * 10, "+" * 10), "other": ("-" * 10, "+" * 10)}
    paths = [
        str(
            write_evaluation(
                tmp_path / name,
                [*records(name, goal, suite="libero_goal"), *records(name, ten, suite="libero_10")],
            )
        )
        for name, (goal, ten) in sides.items()
    ]
    assert main.run(["eval", "compare", *paths]) == 0
    text = capsys.readouterr().out
    (goal,) = [line for line in text.splitlines() if "libero_goal" in line and "10/10" in line]
    assert [cell.strip() for cell in goal.strip("│").split("│")][-2:] == ["0.002", "0.0039"]
    assert "They differ in libero_goal (one by 100.0 points), after Holm's correction." in text
