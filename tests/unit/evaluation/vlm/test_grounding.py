import numpy as np
import pytest
from PIL import Image

from pokevla.errors import DataError
from pokevla.evaluation.vlm.grounding import Question, judge, score_choice, score_points, spread, summarise_verdicts

MASK = np.zeros((10, 20), dtype=bool)
MASK[2:5, 10:20] = True


def question(kind: str = "point", answer: str = "[(0.750, 0.300)]", mask: np.ndarray | None = MASK) -> Question:
    return Question("k0", "grounding", kind, "Where?", answer, Image.new("RGB", (20, 10)), mask)


@pytest.mark.parametrize(
    ("points", "score"),
    [([(0.75, 0.3)], 1.0), ([(0.3, 0.75)], 0.0), ([(0.75, 0.3), (0.1, 0.1)], 0.5), ([], 0.0), ([(1.0, 0.3)], 0.0)],
)
def test_x_comes_first_and_outside_is_wrong(points: list[tuple[float, float]], score: float) -> None:
    assert score_points(points, MASK) == score


def test_an_answer_that_cannot_be_read_is_wrong() -> None:
    assert judge(question(), "near the box").score == 0.0


def test_a_right_answer_scores_one() -> None:
    verdict = judge(question(), "[(0.800, 0.400)]")
    assert (verdict.score, verdict.points) == (1.0, [(0.8, 0.4)])


def test_a_choice_is_its_letter() -> None:
    assert [score_choice(text, "B") for text in ("B", "(B)", "b", "A", "")] == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_a_point_question_without_mask_is_refused() -> None:
    with pytest.raises(DataError, match="k0"):
        judge(question(mask=None), "[(0.5, 0.5)]")


def test_questions_are_spread_evenly_and_keep_their_ends() -> None:
    assert spread(3, 5) == [0, 1, 2]
    assert spread(101, 3) == [0, 50, 100]


def test_figures_keep_points_and_choices_apart() -> None:
    verdicts = [judge(question(), "[(0.800, 0.400)]"), judge(question(), "?"), judge(question("choice", "B"), "B")]
    row = summarise_verdicts(verdicts)
    assert (row["point_accuracy"], row["choice_accuracy"], row["unreadable"]) == (0.5, 1.0, 1)
    assert row["by_category"] == {"grounding": {"questions": 3, "accuracy": pytest.approx(2 / 3)}}
