"""The data card is one page, without network, for robots and for questions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from monitoring.data_card.page import write_card
from pokevla.cli.main import run
from pokevla.errors import DataError
from tests.toys import write_toy_dataset, write_toy_questions

VOID = {"meta", "img", "br", "line", "rect"}


class Balance(HTMLParser):
    """Checks that every element is closed, and collects texts and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.sources = "", []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(path: Path) -> Balance:
    page = Balance()
    page.feed(path.read_text())
    assert page.open == []
    assert page.sources
    assert all(source is not None and source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert not re.search(r"https?://|@import|url\(", path.read_text())
    return page


@pytest.mark.parametrize("write", [write_toy_dataset, write_toy_questions])
def test_the_card_is_one_whole_page(
    write: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = write(tmp_path / "toy <set>"), tmp_path / "cards" / "card.html"
    for _ in range(2):  # an earlier card is replaced
        assert run(["data", "stats", str(root), "--html", str(out), "--rows", "20"]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    page = read_page(out)
    assert "toy <set>" in page.text
    assert "Duplicates" in page.text
    assert ("Proprio" in page.text) == (write is write_toy_dataset)
    assert ("kind of answer" in page.text) == (write is write_toy_questions)
    assert run(["data", "stats", str(root), "--html", str(out), "--rows", "20", "--json"]) == 0
    text = capsys.readouterr().out
    figures = json.loads(text[text.index("{") :])
    assert "data:image" not in text
    assert figures["num_samples"] > 0


def test_a_page_of_the_user_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_toy_questions(tmp_path / "toy"), tmp_path / "card.html"
    out.write_text("<title>holiday</title>")
    assert run(["data", "stats", str(root), "--html", str(out)]) == 3
    assert "it is not replaced" in capsys.readouterr().err
    with pytest.raises(DataError, match="is not a data card"):
        write_card({}, out)
    assert out.read_text() == "<title>holiday</title>"


def test_damage_is_on_the_page_and_the_command_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_toy_dataset(tmp_path / "toy"), tmp_path / "card.html"
    shard = next((root / "shards").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    assert run(["data", "stats", str(root), "--html", str(out)]) == 3
    assert "is corrupted" in capsys.readouterr().err
    assert "Damaged:" in read_page(out).text
