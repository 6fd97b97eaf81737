"""Reading what Slurm prints, and saying what is wrong when it prints nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pokevla.errors import ClusterError
from pokevla.jobs.durations import format_duration, parse_duration_s
from slurm.cluster import count_gpus, parse_partitions
from slurm.commands import parse_fields, run_slurm


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30 * 60),
        ("10:00", 600),
        ("01:02:03", 3723),
        ("2-00:00:00", 172800),
        ("1-12", 129600),
        ("infinite", None),
        ("UNLIMITED", None),
        ("tomorrow", None),
    ],
)
def test_durations_are_read_as_slurm_writes_them(text: str, seconds: int | None) -> None:
    assert parse_duration_s(text) == seconds


@given(st.integers(0, 10**8))
def test_durations_are_written_as_they_are_read(seconds: int) -> None:
    assert parse_duration_s(format_duration(seconds)) == seconds


def test_fields_may_hold_spaces_and_equal_signs() -> None:
    line = "JobId=7 JobName=a b Reason=None ExitCode=0:15 TRES=cpu=4,mem=2G Command=/x/y.sh --n 3"
    fields = parse_fields(line)
    assert fields["JobName"] == "a b"
    assert fields["ExitCode"] == "0:15"
    assert fields["TRES"] == "cpu=4,mem=2G"
    assert fields["Command"] == "/x/y.sh --n 3"


def test_partitions_are_summed_over_their_nodes_states() -> None:
    text = (
        "gpu*|up|1-00:00:00|6|gpu:a100:8(S:0-1)|idle|1-infinite\n"
        "gpu*|up|1-00:00:00|2|gpu:a100:4|down*|1-infinite\n"
        "debug|inact|10:00|1|(null)|idle|1\n"
    )
    gpu, debug = parse_partitions(text)
    assert (gpu.name, gpu.is_default, gpu.nodes, gpu.nodes_up, gpu.gpus_per_node) == ("gpu", True, 8, 6, 8)
    assert gpu.time_limit_s == 86400
    assert (debug.is_default, debug.is_up, debug.gpus_per_node, debug.time_limit_s) == (False, False, 0, 600)


@pytest.mark.parametrize(
    ("gres", "count"), [("gpu:8", 8), ("gpu:h100:4(S:0-1),nic:2", 4), ("(null)", 0), ("gpu:a:2,gpu:b:3", 5)]
)
def test_gpus_of_a_node_are_counted(gres: str, count: int) -> None:
    assert count_gpus(gres) == count


def test_missing_command_says_where_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ClusterError, match=r"no sinfo on this machine.*login node"):
        run_slurm("sinfo")
