"""The figures of the report, against those of a mixture counted by hand."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pokevla.data.curation.report import MIN_COUNT
from pokevla.data.mixing.report.diversity import measure_diversity, text_hashes
from pokevla.data.mixing.report.figures import mixture_figures
from pokevla.data.mixing.report.lengths import LengthCounts, characters, tokens_of, words
from pokevla.data.mixing.report.pictures import OF_A_SOURCE
from pokevla.data.mixing.summary import AnswerFacts, ListFacts
from pokevla.data.records import point_record
from pokevla.errors import DataError
from pokevla.model.tokenizers.loading import load_tokenizer
from tests.unit.data.loading.test_skipping import damage_sample
from tests.unit.data.mixing.report.tiny import RECORDS, record, uncounted, write_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mixture; tests only read it."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def figures(tiny: Path) -> dict[str, Any]:
    return mixture_figures(tiny, uncounted)[1]


def row_of(rows: list[dict[str, Any]], **names: Any) -> dict[str, Any]:
    found = [row for row in rows if all(row[name] == value for name, value in names.items())]
    assert len(found) == 1
    return found[0]


def test_diversity_of_a_source_and_of_its_category(figures: dict[str, Any]) -> None:
    assert figures["samples"] == 9
    spots = row_of(figures["groups"], category="grounding", source="spots")
    assert (spots["samples"], spots["distinct"], spots["top"]) == (3, 2, "Point here.")
    assert (spots["share_distinct"], spots["share_top"]) == (2 / 3, 2 / 3)
    grounding = row_of(figures["groups"], category="grounding", source=None)
    assert (grounding["samples"], grounding["distinct"], grounding["share_top"]) == (4, 3, 0.5)
    # "point here." twice, "point there." and "mark the" once
    assert grounding["entropy"] == pytest.approx(0.5 * 1 + 2 * 0.25 * 2)
    talk = row_of(figures["groups"], category="general", source="talk")
    assert (talk["distinct"], talk["entropy"], talk["without_image"], talk["several_lines"]) == (2, 0.0, 1, 1)
    assert [row["category"] for row in figures["groups"] if row["source"] is None] == [
        "general", "grounding", "reasoning",
    ]  # fmt: skip


def test_positions_of_points_and_of_centres_of_boxes(figures: dict[str, Any]) -> None:
    points = row_of(figures["positions"], category="grounding", kind="point")
    assert points["count"] == 4
    coarse = np.zeros((4, 4))
    coarse[0, 0], coarse[2, 2], coarse[3, 3] = 0.25, 0.5, 0.25
    assert points["coarse"] == coarse.tolist()
    assert points["centre"] == 0.5
    box = row_of(figures["positions"], category="grounding", kind="box")
    assert np.argwhere(box["grid"]).tolist() == [[8, 6]]  # (0.3, 0.4) in 20 x 20 cells
    assert [row["kind"] for row in figures["positions"] if row["category"] == "general"] == []


def test_points_per_answer(figures: dict[str, Any]) -> None:
    points = row_of(figures["points"], kind="point")
    assert points["counts"][:4] == [0, 2, 1, 0]
    assert (points["answers"], points["mean"]) == (3, 4 / 3)
    assert row_of(figures["points"], kind="trace")["counts"][3] == 1


def test_many_points_are_counted_together(tmp_path: Path) -> None:
    many = record(9, "grounding", "spots", "free", "All.", **point_record([(n / 100, 0.5) for n in range(40)]))
    write_tiny(tmp_path, {"grounding": [many]})
    assert row_of(mixture_figures(tmp_path, uncounted)[1]["points"], kind="point")["counts"][32] == 1


def test_lengths_count_all_turns(figures: dict[str, Any]) -> None:
    assert figures["lengths"]["units"] == ["words", "characters"]
    talk = row_of(figures["lengths"]["rows"], category="general", unit="words")
    assert (talk["questions"]["largest"], talk["questions"]["total"]) == (4, 7)  # What is it? Why? / What is this
    assert (talk["answers"]["largest"], talk["answers"]["median"], talk["answers"]["total"]) == (4, 2, 6)
    reasoning = row_of(figures["lengths"]["rows"], category="reasoning", unit="words")
    assert reasoning["answers"]["total"] == 1 + 1 + 6
    assert reasoning["share_samples"] == 3 / 9
    assert reasoning["share_answers"] == 8 / (6 + 4 + 2 + 4 + 2 + 8)


def test_lengths_in_tokens(tiny: Path) -> None:
    tokenizer = load_tokenizer()
    figures = mixture_figures(tiny, uncounted, [tokens_of(tokenizer)])[1]
    row = row_of(figures["lengths"]["rows"], category="general")
    expected = [
        len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("A red cup", "So.", "One\nTwo")
    ]
    assert (row["unit"], row["answers"]["total"]) == ("tokens", sum(expected))


def test_letters_and_yes_no(figures: dict[str, Any]) -> None:
    letters = row_of(figures["letters"], source="logic")
    assert (letters["letters"], letters["before"], letters["after"], letters["skew"]) == (
        ["A", "B"],
        [4, 1],
        [1, 1],
        1.0,
    )
    words = row_of(figures["yes_no"], source="logic")
    assert (words["share_before"], words["share_after"]) == (0.75, 0.5)


def test_pictures_are_of_every_source_and_task(figures: dict[str, Any]) -> None:
    shown = {each["key"]: each for each in figures["pictures"]}
    assert shown.keys() == {each.key for its in RECORDS.values() for each in its}  # at most four of each source
    assert [key for key, each in shown.items() if each["picture"] is None] == ["talk/1"]
    assert shown["spots/2"]["picture"] != shown["spots/0"]["picture"]  # grey, but for what is drawn


def test_a_rare_sample_with_several_images_is_shown(tmp_path: Path) -> None:
    of_one = [record(n, "grounding", "spots", "free", "Here?", **point_record([(0.5, 0.5)])) for n in range(300)]
    rare = replace(of_one[0], key="spots/rare", num_images=2)
    write_tiny(tmp_path, {"grounding": [*of_one[:200], rare, *of_one[200:]]}, inputs=[], notes=[])
    shown = mixture_figures(tmp_path, uncounted)[1]["pictures"]
    assert len(shown) == OF_A_SOURCE == len({each["key"] for each in shown})
    assert shown[0]["key"] == "spots/rare"
    assert _size(shown[0])[0] > 1.9 * _size(shown[1])[0]  # both images, side by side


def _size(shown: dict[str, Any]) -> tuple[int, int]:
    with Image.open(io.BytesIO(base64.b64decode(shown["picture"].split(",", 1)[1]))) as image:
        return image.size


def test_alarms_of_a_small_mixture(figures: dict[str, Any]) -> None:
    assert figures["alarms"] == [
        "affordance: the sources have 0 samples of the budget of 8; 8 are missing.",
        "No list of benchmark pictures was left out: leakage was not checked (pokevla data leakage).",
        "talk: its conversion rejected 38 % of the records.",
        "spots: its conversion rejected 10 % of the records (of one file more than 20 %).",
        "spots: alarm boxes_equal of its conversion: more than 5 % of the boxes are the same.",
        "spots: alarm strange of its conversion.",
        "spots does not state a licence.",
    ]


def test_alarms_that_need_many_samples(tmp_path: Path) -> None:
    long = "reason " * 100
    questions = [
        record(n, "grounding", "same", "free", "Here?", **point_record([(0.5, 0.5)])) for n in range(MIN_COUNT)
    ]
    thought = replace(RECORDS["general"][0], category="reasoning", source="deep", answer=long)
    waiver = [{"reason": "ours", "hits": 1}]
    write_tiny(
        tmp_path,
        {"grounding": questions, "reasoning": [thought]},
        inputs=[],
        notes=[],
        lists=[ListFacts("a", "duplicates", "0", {}, []), ListFacts("b", "leakage", "0", {}, waiver)],
        letters=[AnswerFacts("reasoning", "deep", "pick", 2, {}, {"A": 40, "B": 10})],
        yes_no=[AnswerFacts("reasoning", "deep", "judge", 0, {}, {"yes": 40, "no": 10})],
    )
    assert mixture_figures(tmp_path, uncounted)[1]["alarms"] == [
        "The check for leakage accepts hits by waivers (1): their reasons are below.",
        "grounding, same: one question is asked in 100 % of the samples.",
        "grounding, point: 100 % of the targets lie in the quarter around the centre; evenly it would be 25 %.",
        "reasoning, deep: A is the right letter of 80 % of the questions.",
        "reasoning, deep, judge: yes is the answer of 80 %.",
        "reasoning has 2.0 % of the samples and 50 % of the words of all answers: a loss averaged over tokens weighs "
        "it 25.6 times as much as one averaged over samples.",
    ]


def test_a_damaged_picture_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    damage_sample(tmp_path / "grounding", 3)
    figures = mixture_figures(tmp_path, uncounted)[1]
    assert len(figures["damaged"]) == 1
    assert any(sentence.startswith("Damaged: ") for sentence in figures["alarms"])
    assert len(figures["pictures"]) == 8


def test_another_dataset_than_that_of_the_mixture_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path / "one")
    write_tiny(tmp_path / "two", {"general": RECORDS["general"][:1]})
    (tmp_path / "one/general").rename(tmp_path / "old")
    (tmp_path / "two/general").rename(tmp_path / "one/general")
    with pytest.raises(DataError, match="its fingerprint differs"):
        mixture_figures(tmp_path / "one", uncounted)


def test_a_damaged_table_is_an_error(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    table = tmp_path / "general/samples.parquet"
    table.write_bytes(table.read_bytes()[:-4] + b"oops")
    with pytest.raises(DataError, match=r"samples\.parquet"):
        mixture_figures(tmp_path, uncounted)


def test_an_empty_mixture_has_no_figures(tmp_path: Path) -> None:
    write_tiny(tmp_path, {})
    figures = mixture_figures(tmp_path, uncounted)[1]
    assert (figures["samples"], figures["groups"], figures["positions"], figures["pictures"]) == (0, [], [], [])


@given(st.lists(st.sampled_from(["What is it?", "what IS that", "Is it?", "", "a"]), max_size=30))
def test_diversity_is_that_of_the_texts(texts: list[str]) -> None:
    measured = measure_diversity(*text_hashes(pa.array(texts, pa.string())))
    counts = {text: texts.count(text) for text in texts}
    heads = [" ".join(text.split()[:2]).casefold() for text in texts]
    shares = [heads.count(head) / len(heads) for head in set(heads)]
    assert (measured.samples, measured.distinct) == (len(texts), len(counts))
    assert measured.top == max(counts.values(), default=0)
    assert measured.first == (texts.index(max(texts, key=lambda text: counts[text])) if texts else -1)
    assert measured.entropy == pytest.approx(-sum(share * math.log2(share) for share in shares))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60))
def test_lengths_are_those_counted(lengths: list[int]) -> None:
    counted = LengthCounts()
    counted.add(np.array(lengths[:7]))
    counted.add(np.array(lengths[7:], dtype=np.int64))
    plain, ordered = counted.to_dict(), sorted(lengths)
    assert (plain["texts"], plain["total"], plain["largest"]) == (len(lengths), sum(lengths), ordered[-1])
    assert plain["median"] == ordered[math.ceil(len(lengths) / 2) - 1]
    assert plain["q95"] == ordered[math.ceil(0.95 * len(lengths)) - 1]
    assert sum(plain["counts"]) + plain["above"] == len(lengths)
    width = plain["high"] / len(plain["counts"])
    inside = [length for length in lengths if length < plain["high"]]
    assert plain["counts"] == np.bincount([int(n / width) for n in inside], minlength=len(plain["counts"])).tolist()


@given(st.lists(st.text(), max_size=20))
def test_words_and_characters_are_those_of_python(texts: list[str]) -> None:
    column = pa.array(texts, pa.string())
    assert characters(column).tolist() == [len(text) for text in texts]
    plain = ["".join(each if each.isalnum() else " " for each in text) for text in texts]
    assert words(pa.array(plain, pa.string())).tolist() == [len(text.split()) for text in plain]
