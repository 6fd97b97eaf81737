"""Questions of `pokevla data convert hova-...`, by templates and by a language model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pokevla.cli.main import run
from pokevla.data.curation.rewriting.checks import REFUSED
from pokevla.data.curation.rewriting.templates import TEMPLATES
from pokevla.data.dataset import open_dataset
from pokevla.data.reader import ShardReader
from tests.unit.data.curation.published import convert, reasons, save, write_json
from tests.unit.data.curation.rewriting.chat_server import chat_server

EPIC = "annotations/train/epic100.json"
NOUNS = ["cup", "scissors", "board:chopping", "tap", "drawer", "jar", "lid"]
VERBS = ["take", "turn-on", "put-into", "open"]


def write_epic(root: Path, count: int = 300) -> Path:
    """EPIC-KITCHENS rows: more than one chunk of 256."""
    save(root / "epic-100/EPIC-KITCHENS_frames/P99/frame.jpg")
    rows = [
        {"img_path": "P99/frame.jpg", "narration_id": f"P99_{n}", "points": [[32, 12]], "gt_path": f"{n}.png",
         "verb": VERBS[n % len(VERBS)], "noun": NOUNS[n % len(NOUNS)]}
        for n in range(count)
    ]  # fmt: skip
    write_json(root / EPIC, rows)
    return root


def answer(request: str) -> str:
    """What a helpful model says; about the jar it does not obey."""
    noun = request.split("A picture shows the ")[1].split(".")[0]
    action = request.split("the action (")[1].split(")")[0]
    if noun == "jar":
        return "I'm sorry, I cannot see the jar.\nTouch it at (0.2, 0.5)."
    return f"1. To {action} the {noun}, where does the hand go?\n2. Which spot serves to {action} the {noun}?"


def files(out: Path) -> dict[str, bytes]:
    """Every file of a dataset."""
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def origins(out: Path) -> list[dict[str, Any]]:
    dataset = open_dataset(out)
    reader = ShardReader(dataset)
    return [json.loads(reader.read(n)["json"])["orig"]["rewrite"] for n in range(len(dataset.samples))]


def test_templates_are_the_default_and_do_not_depend_on_processes_or_other_rows(tmp_path: Path) -> None:
    root = write_epic(tmp_path / "src")
    made = convert("hova-epic100", root, tmp_path / "a")
    convert("hova-epic100", root, tmp_path / "b", "--workers", "2")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    questions = [row["question"] for row in made["rows"]]
    assert made["rewriting"]["by"] == {"template": 300}
    assert made["rewriting"]["template"].keys() == TEMPLATES.keys()
    assert len(set(questions)) > 150
    assert all(re.search(r"cup|scissors|chopping board|tap|drawer|jar|lid", question) for question in questions)
    assert not any(re.search(r"the scissors.*\bit\b|turn on it|\{", question) for question in questions)
    rows = json.loads((root / EPIC).read_text())
    write_json(root / EPIC, rows[100:])
    later = convert("hova-epic100", root, tmp_path / "c")
    assert [row["question"] for row in later["rows"]] == questions[100:]
    other = convert("hova-epic100", root, tmp_path / "d", "--rewrite-seed", "1")
    assert sum(a["question"] == b["question"] for a, b in zip(later["rows"], other["rows"], strict=True)) < 60
    assert other["info"]["made_by"]["settings"]["rewrite_seed"] == 1


def test_a_model_words_questions_and_templates_step_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_epic(tmp_path / "src")
    with chat_server(answer) as chat:
        options = ["--rewrite-model", "tiny", "--rewrite-endpoint", chat.url]
        made = convert("hova-epic100", root, tmp_path / "a", *options)
        assert len(chat.asked) == len(VERBS) * len(NOUNS)
    jars = len([n for n in range(300) if NOUNS[n % len(NOUNS)] == "jar"])
    assert made["rewriting"]["by"] == {"model": 300 - jars, "template": jars}
    assert made["rewriting"]["because"] == {"numbers": jars}  # as frequent as `refusal`
    notes = capsys.readouterr().err
    assert f"rewriting: the model words {300 - jars} questions, templates {jars}" in notes
    assert f"rewriting numbers: {jars} by templates: {REFUSED['numbers']}" in notes
    assert made["rows"][1]["question"].startswith(
        ("To turn on the scissors, where does the hand go?", "Which spot serves to turn on the scissors?")
    )
    kinds = [(origin["by"], "because" in origin) for origin in origins(tmp_path / "a")]
    assert set(kinds) == {("model", False), ("template", True)}

    # The server is gone: the sentences are kept, and processes, slices and interruptions do not matter.
    convert("hova-epic100", root, tmp_path / "b", *options, "--workers", "2")
    for place in ("1/2", "0/2"):
        words = ["data", "convert", "hova-epic100", str(root), str(tmp_path / "c"), *options, "--slice", place]
        assert run(words) == 0
    convert("hova-epic100", root, tmp_path / "c", *options)
    assert files(tmp_path / "a") == files(tmp_path / "b") == files(tmp_path / "c")


def test_a_server_that_does_not_answer_ends_the_command_before_rows_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_epic(tmp_path / "src", 10)
    with chat_server(lambda _: 404) as chat:
        options = ["--rewrite-model", "tiny", "--rewrite-endpoint", chat.url]
        convert("hova-epic100", root, tmp_path / "out", *options, code=3)
    assert "refuses the model 'tiny' (HTTP 404)" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]
    convert("hova-epic100", root, tmp_path / "out", "--rewrite-endpoint", chat.url, code=2)
    convert("hova-epic100", root, tmp_path / "out", *options, "--slice", "1-2", code=2)


def test_a_local_model_that_talks_nonsense_leaves_all_to_the_templates(tmp_path: Path, tiny: Path) -> None:
    root = write_epic(tmp_path / "src", 3)
    cache = tmp_path / "kept"
    options = ["--rewrite-model", str(tiny), "--rewrite-cache", str(cache)]
    made = convert("hova-epic100", root, tmp_path / "a", *options)
    assert made["rewriting"]["by"] == {"template": 3}
    assert made["rewriting"]["because"].keys() <= REFUSED.keys()
    assert made["info"]["made_by"]["settings"]["rewrite_model"]["name"] == "tiny"
    assert str(tmp_path) not in json.dumps(made["info"])
    (kept,) = cache.glob("tiny-*.json")
    before = kept.stat().st_mtime_ns
    convert("hova-epic100", root, tmp_path / "b", *options)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert kept.stat().st_mtime_ns == before


def test_labels_with_control_tokens_or_without_end_are_left_out(tmp_path: Path) -> None:
    root = write_epic(tmp_path / "src", 1)
    (row,) = json.loads((root / EPIC).read_text())
    bad = [{**row, "noun": "cup<|im_end|>"}, {**row, "verb": "take<|im_start|>"}, {**row, "noun": "x" * 201}, row]
    write_json(root / EPIC, bad)
    made = convert("hova-epic100", root, tmp_path / "out")
    assert reasons(made, EPIC) == {0: "special_token", 1: "special_token", 2: "text_too_long"}
    assert len(made["rows"]) == 1
