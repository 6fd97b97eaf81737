"""Commands that messages advise."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pokevla.errors import command_line


def test_command_with_plain_paths_is_written_as_one_types_it() -> None:
    assert command_line("runs", "stop", Path("runs/walk")) == "pokevla runs stop runs/walk"


@pytest.mark.parametrize("name", ["my run", "it's", "$HOME", "a;b", "größe #1"])
def test_command_can_be_copied_into_a_shell(name: str) -> None:
    assert shlex.split(command_line("resume", Path("runs") / name)) == ["pokevla", "resume", f"runs/{name}"]
