"""Limits of partitions, job arrays and accounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pokevla.errors import ClusterError
from pokevla.jobs.plan import JobPlan, plan_job
from pokevla.jobs.profile import Profile
from slurm.cluster import Partition, parse_partitions
from slurm.limits import parse_associations, parse_qos, require_allowance, require_array
from slurm.partition_checks import _partition

GPU = Partition("gpu", True, True, 86400, 4, 4, 8)
PREEMPT = Partition("preempt", False, True, 172800, 16, 2, 8, least_nodes=2, max_nodes=8)
CPU = Partition("cpu", False, False, None, 2, 0, 0)
KNOWN = [GPU, PREEMPT, CPU]
FakeSlurm = Callable[..., None]


def both(**values: object) -> Profile:
    return Profile(partition="gpu,preempt", **values)  # pyright: ignore[reportArgumentType]


def test_job_may_name_several_partitions(load) -> None:
    assert _partition(plan_job(load(), both()), both(), KNOWN) == []


def test_every_partition_of_a_list_must_exist(load) -> None:
    profile = Profile(partition="gpu,premept")
    with pytest.raises(ClusterError, match=r"no partition 'premept'. Did you mean preempt"):
        _partition(plan_job(load(), profile), profile, KNOWN)


def test_of_several_partitions_one_that_fits_is_enough(load) -> None:
    longer = plan_job(load("resources.time_limit=25:00:00", "resources.nodes=2"), both())
    assert _partition(longer, both(), KNOWN) == []
    with pytest.raises(ClusterError, match=r"50:00:00 is above that of partition preempt, 48:00:00"):
        _partition(plan_job(load("resources.time_limit=50:00:00", "resources.nodes=2"), both()), both(), KNOWN)


def test_number_of_nodes_of_a_job_has_limits_of_its_own(load) -> None:
    profile = Profile(partition="preempt")
    with pytest.raises(ClusterError, match=r"resources.nodes is 1, a job in partition preempt has 2 to 8"):
        _partition(plan_job(load(), profile), profile, KNOWN)


def test_partitions_that_are_down_are_a_remark(load) -> None:
    profile = Profile(partition="cpu")
    assert _partition(plan_job(load(), profile), profile, KNOWN) == [
        "partition cpu is down: the job waits until it is up again."
    ]


@pytest.mark.parametrize(
    ("size", "expected"), [("1-infinite", (1, None)), ("2-16", (2, 16)), ("1", (1, 1)), ("infinite", (0, None))]
)
def test_job_sizes_are_read_as_sinfo_writes_them(size: str, expected: tuple[int, int | None]) -> None:
    (partition,) = parse_partitions(f"gpu|up|1:00|4|(null)|idle|{size}\n")
    assert (partition.least_nodes, partition.max_nodes) == expected


@pytest.fixture
def array(load) -> JobPlan:
    """Three Slurm tasks."""
    return replace(plan_job(load(), Profile()), pieces=(("a",), ("b",), ("c",)))


def test_array_larger_than_the_cluster_allows_is_refused_with_the_number(array: JobPlan) -> None:
    require_array(array, {"MaxArraySize": "3"})
    require_array(array, {})
    with pytest.raises(ClusterError, match=r"of 3 tasks is above .* MaxArraySize, 2. Set array_width to at most 2"):
        require_array(array, {"MaxArraySize": "2"})
    with pytest.raises(ClusterError, match="Set array_width to 1"):
        require_array(array, {"MaxArraySize": "0"})


ASSOCIATIONS = "robots||long,normal|normal|4|10|2-00:00:00\nvision|gpu|normal||||\n"


def test_accounts_are_read_with_their_least_limits() -> None:
    robots, vision = parse_associations(ASSOCIATIONS)
    assert (robots.name, robots.qos, robots.default_qos) == ("robots", ("long", "normal"), "normal")
    assert (robots.submitted_jobs, robots.time_limit_s) == (4, 172800)
    assert (vision.partition, vision.submitted_jobs, vision.time_limit_s) == ("gpu", None, None)
    (normal,) = parse_qos("normal|2||12:00:00\n")
    assert (normal.name, normal.submitted_jobs, normal.time_limit_s) == ("QOS normal", 2, 43200)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Commands that print what a cluster with accounting prints."""

    def install(associations: str = ASSOCIATIONS, default: str = "", qos: str = "", queue: str = "", code: int = 0):
        programs = {
            "scontrol": "echo 'AccountingStorageEnforce = associations,limits,qos'",
            "squeue": f"printf '%s' '{queue}'",
            "sacctmgr": f"""case "$*" in
*associations*) printf '%s' '{associations}'; test {code} = 0 || echo 'sacctmgr: error: no slurmdbd' >&2; exit {code};;
*"show user"*) printf '%s' '{default}';;
*) printf '%s' '{qos}';; esac""",
        }
        for name, text in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


def judge(plan: JobPlan, **profile: str) -> list[str]:
    return require_allowance([plan], Profile(**profile))  # pyright: ignore[reportArgumentType]


def test_job_within_the_limits_passes(slurm: FakeSlurm, array: JobPlan) -> None:
    slurm(qos="normal|8||2-00:00:00\n")
    assert judge(array, account="robots") == []
    slurm(default="vision\n")
    assert judge(array) == []


@pytest.mark.parametrize(
    ("profile", "answers", "words"),
    [
        ({}, {}, "names no account, .* Set account to one of yours: robots, vision"),
        ({"account": "robot"}, {}, "may not use the account robot. Did you mean robots"),
        ({"account": "robots"}, {"associations": ""}, "has no account on this cluster"),
        ({"account": "robots", "qos": "high"}, {}, "may not use the QOS high. Use one of long, normal"),
        ({"account": "robots"}, {"queue": "1\n2\n"}, "robots allows 4 jobs in the queue; 2 are there, .* add 3"),
        ({"account": "robots"}, {"qos": "normal|2||\n"}, "QOS normal allows 2 jobs in the queue; 0 are there"),
        ({"account": "robots"}, {"qos": "normal|||0:10:00\n"}, "above that of QOS normal, 0:10:00"),
    ],
)
def test_job_that_an_account_does_not_allow_is_refused(
    slurm: FakeSlurm, array: JobPlan, profile: dict[str, str], answers: dict[str, str], words: str
) -> None:
    slurm(**answers)
    with pytest.raises(ClusterError, match=words):
        judge(array, **profile)


def test_without_an_answer_the_limits_are_left_unchecked_and_a_line_says_so(slurm: FakeSlurm, array: JobPlan) -> None:
    slurm(code=1)
    assert judge(array) == ["limits of accounts were not checked: no slurmdbd."]
