"""Paths as people write them."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.errors import UsageError
from pokevla.files.paths import absolute, expand_path, literal_path

HOME = {"HOME": "/people/me", "DATA": "/data/x", "TILDE": "~/y", "EMPTY": ""}
ROOT = pwd.getpwuid(0)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~", "/people/me"),
        ("~/runs", "/people/me/runs"),
        (f"~{ROOT.pw_name}/x", f"{ROOT.pw_dir}/x"),
        ("$HOME/d", "/people/me/d"),
        ("${HOME}/d", "/people/me/d"),
        ("a/$DATA-1/${DATA}2", "a//data/x-1//data/x2"),
        ("${NONE:-/tmp}/d", "/tmp/d"),
        ("${EMPTY:-/tmp}/d", "/tmp/d"),
        ("$TILDE/z", "/people/me/y/z"),
        ("a/~/b~", "a/~/b~"),
        ("./~x", "./~x"),
        ("cost$$HOME", "cost$HOME"),
        ("5$ and $1", "5$ and $1"),
        ("/plain/päth with spaces [1]*", "/plain/päth with spaces [1]*"),
    ],
)
def test_is_expanded_as_in_a_shell(text: str, path: str) -> None:
    assert expand_path(text, HOME) == path


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("$SCRATCH/runs", "variable SCRATCH, which is not set"),
        ("${SCRATCH}/runs", "variable SCRATCH, which is not set"),
        ("$EMPTY/runs", "variable EMPTY, which is empty"),
        ("${HOME%/}/x", r"\$\{HOME%/\}, which is not a variable"),
        ("${HOME", r"\$\{HOME, which is not a variable"),
        ("~nobody-of-this-name/x", "begins with ~nobody-of-this-name, and there is no such user"),
        ("a\0b", "NUL"),
    ],
)
def test_what_is_not_known_is_named(text: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        expand_path(text, HOME)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_path_that_we_write_is_read_as_the_same_path(text: str) -> None:
    assert Path(expand_path(literal_path(Path(text)), {})) == Path(text)


def test_an_absolute_path_keeps_links_and_follows_what_goes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/deep")
    monkeypatch.chdir(tmp_path)
    assert absolute(Path("link/x")) == tmp_path / "link" / "x"
    assert absolute(Path("link/../x")) == Path(os.path.realpath(tmp_path)) / "disk" / "x"
