"""`pokevla data mix` writes the report with the mixture, and replaces only its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.cli.main import run
from pokevla.data.mixing.summary import REPORT_NAME
from tests.unit.data.curation.published import convert, save, talk, write_json
from tests.unit.data.mixing.planted import write_recipe
from tests.unit.monitoring.test_data_card import read_page


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes 6 of 10 questions."""
    root, rows = tmp_path_factory.mktemp("mixed"), []
    for number in range(10):
        image = f"coco/train2017/{number:012d}.jpg"
        save(root / "llava" / image, seed=number)
        rows.append({"id": str(number), "image": image, "conversations": talk(f"What is number {number}?", "A cup.")})
    write_json(root / "llava/llava_v1_5_mix665k.json", rows)
    convert("llava", root / "llava", root / "sets/llava")
    fields = {"sources": [{"path": str(root / "sets/llava")}], "categories": {"general": {"budget": 6}}}
    return write_recipe(root / "recipe.yaml", root / "sets", root / "out", **fields)


def test_the_report_lies_beside_the_summary_and_can_be_made_again(recipe: Path) -> None:
    assert run(["data", "mix", str(recipe), "--workers", "0", "--overwrite"]) == 0
    page = recipe.parent / "out/vlm" / REPORT_NAME
    first = page.read_bytes()
    assert len(read_page(page).sources) == 4
    page.unlink()
    assert run(["data", "report", str(page.parent)]) == 0
    assert page.read_bytes() == first
    assert run(["data", "mix", str(recipe), "--workers", "2", "--overwrite"]) == 0
    assert page.read_bytes() == first


def test_a_mixture_with_a_page_of_the_user_is_not_replaced(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "mix", str(recipe), "--workers", "0", "name=other"]
    assert run(arguments) == 0
    page = recipe.parent / "out/other" / REPORT_NAME
    page.write_text("<title>mine</title>")
    assert run([*arguments, "--overwrite"]) == 3
    assert "is not a mixture report" in capsys.readouterr().err
    assert page.read_text() == "<title>mine</title>"
