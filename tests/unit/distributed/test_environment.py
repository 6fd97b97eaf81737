"""Ranks are read from the environment, or refused with the variable that is missing."""

from __future__ import annotations

import socket

import pytest

from pokevla.distributed.environment import RankInfo, choose_port, inside_a_rank, read_rank, rendezvous_timeout_s
from pokevla.errors import EnvironmentSetupError

COMPLETE = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}


def test_a_rank_is_read() -> None:
    assert read_rank(COMPLETE) == RankInfo(1, 4, 1)
    assert inside_a_rank(COMPLETE)
    assert not inside_a_rank({})


@pytest.mark.parametrize("missing", ["WORLD_SIZE", "LOCAL_RANK"])
def test_a_missing_variable_is_named(missing: str) -> None:
    with pytest.raises(EnvironmentSetupError, match=missing):
        read_rank({name: value for name, value in COMPLETE.items() if name != missing})


@pytest.mark.parametrize("change", [{"RANK": "4"}, {"RANK": "-1"}, {"WORLD_SIZE": "many"}])
def test_values_out_of_range_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(EnvironmentSetupError):
        read_rank(COMPLETE | change)


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentSetupError, match=rf"Port {port} \(MASTER_PORT\) is in use"):
            choose_port({"MASTER_PORT": str(port)})


def test_a_free_port_is_found_and_a_wrong_one_refused() -> None:
    assert 0 < choose_port({}) < 65536
    with pytest.raises(EnvironmentSetupError, match="not a port number"):
        choose_port({"MASTER_PORT": "http"})


def test_who_starts_the_ranks_decides_how_long_they_wait_for_each_other() -> None:
    assert rendezvous_timeout_s(600.0, {}) == 600.0
    assert rendezvous_timeout_s(600.0, {"POKEVLA_RENDEZVOUS_TIMEOUT_S": "90"}) == 90.0
    for wrong in ("soon", "0", "inf"):
        with pytest.raises(EnvironmentSetupError, match="POKEVLA_RENDEZVOUS_TIMEOUT_S"):
            rendezvous_timeout_s(600.0, {"POKEVLA_RENDEZVOUS_TIMEOUT_S": wrong})
