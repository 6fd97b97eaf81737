"""The report of a mixture is one page, whole, escaped, without network, and the same at every call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from monitoring.mixture_report.page import write_report
from pokevla.cli.main import run
from pokevla.data.mixing.report.figures import mixture_figures
from pokevla.data.mixing.summary import REPORT_NAME, ListFacts
from pokevla.errors import DataError
from pokevla.model.tokenizers.loading import MINI_TOKENIZER
from tests.unit.data.loading.test_skipping import damage_sample
from tests.unit.data.mixing.report.tiny import HOSTILE, RECORDS, uncounted, write_tiny
from tests.unit.monitoring.test_data_card import read_page


def test_the_report_is_one_whole_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(tmp_path)
    assert run(["data", "report", str(tmp_path)]) == 0
    assert f"wrote {tmp_path / REPORT_NAME}" in capsys.readouterr().out
    page = read_page(tmp_path / REPORT_NAME)
    for text in ("Look at this first", "affordance", "paper: HOVA-500K (Ego4D, Epic100), MolmoAct", "553\u202f000",
                 "LLaVA-Instruct-665K", "image_missing", "there is no image file", "duplicate 2", "reasoning: logic",
                 "Where targets lie", "Yes and no", "In words and characters", "0123456789abcdef", "2.0 GiB",
                 "abc"):  # fmt: skip
        assert text in page.text, text
    assert len(page.sources) == 8


def test_the_bytes_depend_on_the_mixture_only(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tiny(tmp_path / name)
        assert run(["data", "report", str(tmp_path / name)]) == 0
        assert run(["data", "report", str(tmp_path / name)]) == 0  # an earlier one is replaced
    assert (tmp_path / "one" / REPORT_NAME).read_bytes() == (tmp_path / "two" / REPORT_NAME).read_bytes()


def test_texts_from_outside_are_shown_as_texts(tmp_path: Path) -> None:
    spoilt = [
        replace(each, question=f"{HOSTILE}\u202e", answer=HOSTILE, source=HOSTILE, task=HOSTILE, answer_kind="text")
        for each in RECORDS["general"]
    ]
    summary = write_tiny(tmp_path, {"general": spoilt})
    inputs = [replace(each, path=HOSTILE, license=HOSTILE, rejected={HOSTILE: 1}, alarms=[HOSTILE], fingerprint=HOSTILE)
              for each in summary.inputs]  # fmt: skip
    every = {
        "name": HOSTILE, "recipe": {HOSTILE: HOSTILE}, "inputs": inputs, "notes": [HOSTILE],
        "made_by": {HOSTILE: HOSTILE},
        "lists": [ListFacts(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: 1}, [{HOSTILE: HOSTILE}])],
        "counts": [replace(each, source=HOSTILE, task=HOSTILE, left_out={HOSTILE: 1}) for each in summary.counts],
        "strata": [replace(each, source=HOSTILE, task=HOSTILE) for each in summary.strata],
        "letters": [replace(each, source=HOSTILE) for each in summary.letters],
        "yes_no": [replace(each, source=HOSTILE, task=HOSTILE) for each in summary.yes_no],
    }  # fmt: skip
    _, figures = mixture_figures(tmp_path, uncounted)
    page = write_report(tmp_path, replace(summary, **every), figures)
    assert "<script" not in page.read_text().casefold()
    assert "\u202e" not in page.read_text()
    assert read_page(page).text.count("<script>alert('x')</script>") > 30


def test_an_empty_mixture_has_a_page(tmp_path: Path) -> None:
    write_tiny(tmp_path, {}, inputs=[], lists=[], categories=[], strata=[], counts=[], letters=[], yes_no=[])
    assert run(["data", "report", str(tmp_path)]) == 0
    text = (tmp_path / REPORT_NAME).read_text()
    assert "There are no multiple-choice questions." in text
    assert "<img" not in text


def test_lengths_in_tokens_and_another_page(tmp_path: Path) -> None:
    write_tiny(tmp_path / "m")
    out = tmp_path / "page.html"
    assert run(["data", "report", str(tmp_path / "m"), "--tokenizer", str(MINI_TOKENIZER), "--out", str(out)]) == 0
    assert "In tokens of the given tokenizer" in read_page(out).text
    assert not (tmp_path / "m" / REPORT_NAME).exists()


def test_damage_is_on_the_page_and_the_command_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny(tmp_path)
    damage_sample(tmp_path / "grounding", 0)
    assert run(["data", "report", str(tmp_path)]) == 3
    assert "is corrupted" in capsys.readouterr().err
    assert "Damaged:" in read_page(tmp_path / REPORT_NAME).text


def test_a_page_of_the_user_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = write_tiny(tmp_path)
    page = tmp_path / REPORT_NAME
    page.write_text("<title>holiday</title>")
    assert run(["data", "report", str(tmp_path)]) == 3
    assert "it is not replaced" in capsys.readouterr().err
    with pytest.raises(DataError, match="is not a mixture report"):
        write_report(tmp_path, summary, {})
    assert page.read_text() == "<title>holiday</title>"
