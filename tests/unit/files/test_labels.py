"""Names and texts from outside."""

from __future__ import annotations

import pytest

from pokevla.files.labels import lies_within, name_problem, printable


@pytest.mark.parametrize("name", ["trained", "trained [8]", "a.b*?", "näme 5 %", "$HOME", "-x", "a" * 100])
def test_harmless_names_are_allowed(name: str) -> None:
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "../../x",
        "a\\b",
        ".hidden",
        "..",
        " a",
        "a ",
        "a\nb",
        "a\tb",
        "a\0b",
        "a\x1b[31mb",
        "a\u202eb",
        "a" * 101,
    ],
)
def test_names_that_leave_their_folder_or_act_on_a_terminal_are_not(name: str) -> None:
    assert name_problem(name) is not None


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("a.bin", True),
        ("state/a.pt", True),
        ("../a", False),
        ("/a", False),
        ("a/../../b", False),
        ("a//b", False),
        ("", False),
    ],
)
def test_a_file_named_in_a_file_lies_in_its_folder(name: str, inside: bool) -> None:
    assert lies_within(name) is inside


def test_control_characters_become_visible() -> None:
    assert printable("\x1b]0;title\x07 a\rb\u202ec\u2028") == r"\x1b]0;title\x07 a\rb\u202ec\u2028"
    assert printable("plain [red] text\n\twith ä, 日本, 👍") == "plain [red] text\n\twith ä, 日本, 👍"
