"""What a job asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pokevla.errors import RecipeError
from pokevla.jobs.pieces import divide
from pokevla.jobs.plan import measured_save_s, plan_job
from pokevla.jobs.profile import Profile
from pokevla.runs.lead_time import UNKNOWN_S, needed_lead_s


def test_ranks_are_spread_over_nodes(load) -> None:
    plan = plan_job(load("resources.nodes=2", "resources.cpu_ranks=4"), Profile())
    assert (plan.nodes, plan.tasks_per_node, plan.gpus_per_node) == (2, 2, 0)
    with pytest.raises(RecipeError, match="cannot be spread evenly over 2 nodes"):
        plan_job(load("resources.nodes=2", "resources.cpu_ranks=3", "batch.global=6"), Profile())


def test_one_task_per_gpu(load) -> None:
    plan = plan_job(load("resources.nodes=2", "resources.gpus_per_node=8", "batch.global=32"), Profile())
    assert (plan.nodes, plan.tasks_per_node, plan.gpus_per_node) == (2, 8, 8)


def test_the_shorter_time_limit_counts(load) -> None:
    assert plan_job(load(), Profile(time_limit="00:30:00")).time_limit_s == 1800
    assert plan_job(load(), Profile(time_limit="2-00:00:00")).time_limit_s == 3600


def test_lead_of_the_warning_follows_the_measured_save(load, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "walk"
    run.mkdir(parents=True)
    assert plan_job(load(), Profile()).signal_lead_s == UNKNOWN_S
    saves = [{"event": "saved", "step": step, "save_s": seconds} for step, seconds in ((1, 20.0), (2, 100.0))]
    (run / "events.jsonl").write_text("".join(json.dumps(save) + "\n" for save in saves))
    assert measured_save_s(run) == 100.0
    plan = plan_job(load(), Profile())
    assert plan.is_save_measured
    assert plan.signal_lead_s == needed_lead_s(run) > 60 + 100
    assert plan_job(load(), Profile(signal_lead_s=77)).signal_lead_s == 77


def test_pieces_hold_every_name_once_and_differ_by_one_at_most() -> None:
    names = [f"s{number}" for number in range(7)]
    pieces = divide(names, 3)
    assert sorted(name for piece in pieces for name in piece) == names
    assert [len(piece) for piece in pieces] == [3, 2, 2]
    assert divide(names[:2], 3) == (("s0",), ("s1",))
    assert divide([], 3) == ()
