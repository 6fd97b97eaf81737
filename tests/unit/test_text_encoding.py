"""Text is UTF-8 in files and between processes, whatever the locale. A terminal that lacks a character gets `?`."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.monitoring.run_folders import make_run

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("pokevla", "slurm", "monitoring", "checkpoints_tools", "benchmarks", "scripts")
READERS = ("read_text", "write_text")


def calls_in_the_locales_encoding(source: str) -> Iterator[int]:
    """Lines of calls that read or write text without saying in which encoding."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        named = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in named:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in READERS and isinstance(node.func, ast.Attribute) and name != getattr(node.func.value, "id", ""):
            yield node.lineno
        elif name == "open" and getattr(getattr(node.func, "value", None), "id", "") != "tarfile":
            place = 1 if isinstance(node.func, ast.Name) or getattr(node.func.value, "id", "") == "os" else 0
            mode = named.get("mode", node.args[place] if len(node.args) > place else ast.Constant("r"))
            if isinstance(mode, ast.Constant) and isinstance(mode.value, str) and "b" not in mode.value:
                yield node.lineno
        elif name in ("run", "Popen", "check_output") and "text" in named:
            yield node.lineno


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("path.read_text()", 1),
        ('path.write_text("x", encoding="utf-8")', 0),
        ('open("x")', 1),
        ('open("x", "w")', 1),
        ('open("x", "rb")', 0),
        ('path.open("a")', 1),
        ('path.open("ab")', 0),
        ("subprocess.run(command, text=True)", 1),
        ('subprocess.run(command, text=True, encoding="utf-8")', 0),
    ],
)
def test_the_search_finds_what_it_should(source: str, count: int) -> None:
    assert len(list(calls_in_the_locales_encoding(source))) == count


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_text_is_read_or_written_in_the_locales_encoding(folder: str) -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for line in calls_in_the_locales_encoding(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a Latin-1 locale, made by glibc's own compiler of locales."""
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(folder / "en_US.ISO-8859-1")]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"localedef cannot make a Latin-1 locale here: {error}")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1", "PYTHONUTF8": "0"}


def pokevla(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONIOENCODING", "PYTHONUTF8")}
    command = [sys.executable, "-m", "pokevla.cli.main", *arguments]
    wide = {"COLUMNS": "300"}  # no path is wrapped
    return subprocess.run(command, env=variables | wide | environment, capture_output=True, check=False, timeout=120)


@pytest.mark.parametrize("case", ["latin-1", "ascii"])
def test_a_run_is_watched_where_characters_are_missing(tmp_path: Path, latin_1: dict[str, str], case: str) -> None:
    run = make_run(tmp_path / "walk")
    environment = latin_1 if case == "latin-1" else {"PYTHONIOENCODING": "ascii"}

    shown = pokevla(environment, "watch", str(run), "--once")

    assert shown.returncode == 0, shown.stderr.decode()
    assert b"walk" in shown.stdout
    assert pokevla(environment, "runs", "ls", str(tmp_path)).returncode == 0


def test_files_and_messages_are_right_in_a_latin_1_locale(tmp_path: Path, latin_1: dict[str, str]) -> None:
    recipe = tmp_path / "a.yaml"
    text = "kind: pipeline\nname: p\noutput: o\nstages: [{name: a, run: [\u65e5\u672c, \u00e9]}]\n"
    recipe.write_text(text, encoding="utf-8")

    shown = pokevla(latin_1, "recipe", "show", str(recipe))
    refused = pokevla(latin_1, "recipe", "show", str(recipe), "\u65e5=1")

    assert shown.returncode == 0, shown.stderr.decode()
    assert '["??", "\u00e9"]'.encode("latin-1") in shown.stdout
    assert refused.returncode == 2
    assert b"Error" not in refused.stderr.replace(b"error:", b"")
