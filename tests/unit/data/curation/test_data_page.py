"""What docs/data.md says about published question sets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from pokevla.data.curation import rules
from pokevla.data.curation.rewriting.checks import REFUSED
from pokevla.data.curation.rewriting.endpoint import KEY_VARIABLE
from pokevla.data.curation.rewriting.templates import TEMPLATES
from pokevla.data.dataset import open_dataset
from pokevla.parts import DATA_SOURCES
from tests.unit.data.curation.published import save, write_json

ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs/data.md").read_text()


def test_the_page_explains_every_code_as_the_rules_do() -> None:
    section = PAGE.split("### Reason codes")[1].split("### A set of your own")[0]
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (.*) \|$", section, flags=re.MULTILINE)
    tables = [rules.REJECTED, rules.PASSED_OVER, rules.FLAGGED, rules.ALARMS]
    assert rows == [pair for table in tables for pair in table.items()]


def test_the_page_explains_every_reason_for_a_template_instead_of_a_model() -> None:
    section = PAGE.split("### Rewriting labels")[1].split("### Reason codes")[0]
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (.*) \|$", section, flags=re.MULTILINE)
    assert rows == list(REFUSED.items())
    assert "twelve templates" in section
    assert len(TEMPLATES) == 12
    assert f"`{KEY_VARIABLE}`" in section


def test_the_page_explains_what_is_found_in_finished_datasets() -> None:
    section = PAGE.split("## Duplicates and leakage")[1].split("**Duplicates.**")[0]
    assert re.findall(r"^\| `([a-z_]+)` \| (.*) \|$", section, flags=re.MULTILINE) == list(rules.SCREENED.items())


def test_the_page_lists_every_set() -> None:
    section = PAGE.split("## Published question sets")[1].split("### Reason codes")[0]
    sets = [name for name, entry in DATA_SOURCES.items() if isinstance(entry, str) and "verbs.curation:" in entry]
    assert len(sets) == 10
    assert [name for name in sets if f"`{name}`" not in section] == []


def test_a_set_of_ones_own_is_one_short_file(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(# my_questions.py\n.*?)```", PAGE, flags=re.DOTALL)
    assert len(code.splitlines()) < 60
    (tmp_path / "my_questions.py").write_text(code)
    save(tmp_path / "src/pictures/a.jpg")
    write_json(tmp_path / "src/mugs.json", [{"picture": "a.jpg", "handle": [16, 12]}, {"handle": [1, 2]}])
    words = [sys.executable, "-m", "pokevla.cli.main", "data", "convert", "mugs", "src", "out", "--workers", "1"]
    variables = {**os.environ, "POKEVLA_EXTENSIONS": "my_questions", "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    result = subprocess.run(
        words, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "row_layout: 1 left out" in result.stderr
    assert open_dataset(tmp_path / "out").samples["answer"].to_pylist() == ["[(0.250, 0.250)]"]
