"""Run directories whose names Slurm, submitit or PYTHONPATH would take apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.errors import ClusterError
from pokevla.jobs.plain_path import make_plain_path, plain_path

UGLY = ["50%job", "100%train", "a:b", "back\\slash", b"latin-\xe9".decode("utf-8", "surrogateescape")]


@pytest.mark.parametrize("name", ["run", "my run", "it's", 'a"b', "#1", "$5", "x;y,z", "größe", "`id`", "[0]*", "~me"])
def test_path_that_is_taken_literally_is_used_as_it_is(tmp_path: Path, name: str) -> None:
    assert make_plain_path(tmp_path / name) == tmp_path / name
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", UGLY)
def test_other_path_gets_a_link_without_such_characters(tmp_path: Path, name: str) -> None:
    run = tmp_path / name / "runs" / "walk"
    run.mkdir(parents=True)
    link = make_plain_path(run)
    assert link == plain_path(run)
    assert link.parent == tmp_path
    assert link.resolve() == run
    assert not set("%:\\") & set(str(link))
    assert make_plain_path(run) == link, "the second job of a run uses the link of the first"


def test_two_runs_have_two_links(tmp_path: Path) -> None:
    assert plain_path(tmp_path / "%a") != plain_path(tmp_path / "%b")


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\x1bb"])
def test_line_break_in_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClusterError, match=r"holds a control character.*another `output`"):
        plain_path(tmp_path / name)


def test_link_that_cannot_be_made_says_which_characters_are_in_the_way(tmp_path: Path) -> None:
    run = tmp_path / "50%"
    run.mkdir()
    plain_path(run).write_text("in the way")
    with pytest.raises(ClusterError, match="Choose an `output` without `%`"):
        make_plain_path(run)
