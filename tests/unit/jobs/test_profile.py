"""Cluster profiles: every mistake has its place and the name that was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from pokevla.errors import ClusterError, RecipeError, UsageError
from pokevla.jobs.profile import Profile, load_profile, profile_names, require_partition


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_loads(name: str) -> None:
    assert load_profile(name, {})[0] == name


def test_without_a_choice_the_variable_decides_and_without_it_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "partition: short\n")
    assert load_profile(None, {"POKEVLA_PROFILE": path})[1].partition == "short"
    assert load_profile(None, {}) == ("", Profile())


def test_profile_extends_another_and_takes_variables(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text('time_limit: "2-00:00:00"\naccount: ${WHO}\n')
    _, profile = load_profile(write(tmp_path, "extends: [base.yaml]\npartition: gpu\n"), {"WHO": "lab"})
    assert (profile.account, profile.partition, profile.time_limit_s) == ("lab", "gpu", 172800)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("partitoin: gpu", r"mine.yaml:1: partitoin is not a field of a profile. Did you mean partition\?"),
        ("qos: x\ngpus_per_node: eight", "mine.yaml:2: gpus_per_node should be a whole number"),
        ("time_limit: tomorrow", "mine.yaml:1: time_limit should be"),
        ("mail: {user: me, events: [ENDE]}", "mine.yaml:1: .*ENDE.*Did you mean END"),
        ("sbatch:\n  time: 10", "mine.yaml:2: sbatch.time is set by pokevla submit itself. Use time_limit."),
        ('sbatch:\n  comment: "a\\nrm -rf ~"', "mine.yaml:2: sbatch.comment holds a line break"),
        ('sbatch:\n  "x y": 1', "mine.yaml:2: 'x y' is not a long flag of sbatch"),
        ('constraint: "a\\nb"', "mine.yaml:1: constraint holds a line break"),
        ('environment:\n  "A B": x', "mine.yaml:2: 'A B' is not the name of an environment variable"),
        ("environment:\n  PYTHONPATH: /x", "mine.yaml:2: environment.PYTHONPATH is set by pokevla submit itself"),
        ("account: ${NOBODY_SET_THIS}", "mine.yaml:1: account uses the environment variable NOBODY_SET_THIS"),
    ],
)
def test_mistake_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_profile(write(tmp_path, text), {})


def test_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no profile 'preemtable'. Did you mean preemptable"):
        load_profile("preemtable", {})
    with pytest.raises(UsageError, match=r"nowhere.yaml does not exist"):
        load_profile("nowhere.yaml", {})


def test_unknown_partition_names_the_nearest() -> None:
    require_partition("train", ["train", "high"])
    with pytest.raises(ClusterError, match=r"no partition 'trian'. Did you mean train"):
        require_partition("trian", ["train", "high"])
