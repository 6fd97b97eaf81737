"""A task's ranks, the lock of a run, and restarts without progress."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from pokevla.errors import ClusterError, EnvironmentSetupError, UsageError
from pokevla.jobs.launcher import launcher_of, read_task
from pokevla.jobs.task.job import Job
from pokevla.jobs.task.job_lock import holder, job_lock, refuse_second_job
from pokevla.jobs.task.job_task import PORTS, export_rendezvous
from pokevla.jobs.task.restarts import PATIENCE, Cause, record_restart
from slurm.task import main_address

TASK = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "31", "SLURM_PROCID": "5", "SLURM_NTASKS": "8",
        "SLURM_LOCALID": "1", "SLURM_JOB_NUM_NODES": "2", "SLURM_RESTART_COUNT": "2"}  # fmt: skip


def test_place_is_read_from_srun() -> None:
    task = read_task(TASK)
    assert (task.rank, task.world_size, task.local_rank, task.local_world_size) == (5, 8, 1, 4)
    assert (task.job_id, task.restarts, task.is_main) == ("31", 2, False)
    task = read_task({**TASK, "SLURM_ARRAY_JOB_ID": "30", "SLURM_ARRAY_TASK_ID": "4"})
    assert task.job_id == "30_4"


def test_jobs_are_told_apart_by_their_ids() -> None:
    names = {job_id: launcher_of(job_id) for job_id in ("812", "812_3", "local-77", "toy-5")}
    prefixes = {job_id: None if launcher is None else launcher.prefix for job_id, launcher in names.items()}
    assert prefixes == {"812": "", "812_3": "", "local-77": "local-", "toy-5": None}


def test_outside_a_job_there_is_no_place() -> None:
    with pytest.raises(EnvironmentSetupError, match="not a task of a submitted job"):
        read_task({})


def test_address_falls_back_on_sruns_when_names_do_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "no-such-host-[1-2]")
    assert main_address({"SLURM_LAUNCH_NODE_IPADDR": "10.1.2.3"}) == "10.1.2.3"
    with pytest.raises(EnvironmentSetupError, match="no-such-host-1 does not resolve"):
        main_address({})
    monkeypatch.setenv("SLURM_JOB_NODELIST", "localhost")
    assert main_address({"SLURM_LAUNCH_NODE_IPADDR": "10.1.2.3"}) == "localhost"


def test_all_ranks_agree_on_a_port_and_a_restart_takes_another() -> None:
    def port(**changes: str) -> int:
        environment: dict[str, str] = {}
        export_rendezvous(read_task({**TASK, **changes}), Path("/runs/walk"), "localhost", environment)
        return int(environment["MASTER_PORT"])

    assert port() == port(SLURM_PROCID="0")
    assert port() != port(SLURM_RESTART_COUNT="3")
    assert PORTS[0] <= port() < PORTS[1]


def test_a_job_is_pickled_as_its_directory_and_no_more() -> None:
    assert len(pickle.dumps(Job("/runs/walk", 3))) < 200
    assert pickle.loads(pickle.dumps(Job("/runs/walk", 3))) == Job("/runs/walk", 3)  # noqa: S301


@pytest.mark.parametrize(
    ("cause", "limit", "phrase"),
    [("timeout", 3, "reached their time limit"), ("hang", 3, "hung"), ("killed", 3, "been killed"),
     ("terminated", 10, "been ended by a SIGTERM")],
)  # fmt: skip
def test_limits_and_hangs_without_progress_end_the_restarts(
    tmp_path: Path, cause: Cause, limit: int, phrase: str
) -> None:
    starts = [read_task({**TASK, "SLURM_RESTART_COUNT": str(number)}) for number in range(16)]
    for start, progress in enumerate((0, 4, 4, 4)):
        record_restart(tmp_path, None, starts[start], progress, "timeout")
    record_restart(tmp_path, None, starts[4], 8, cause)
    for start in starts[5 : 4 + limit]:
        for _ in range(5):  # by several ranks: one start counts once
            record_restart(tmp_path, None, start, 8, cause)
    for _ in range(2):  # whoever of the ranks asks
        with pytest.raises(ClusterError, match=f"{limit} starts in a row have {phrase}.* without"):
            record_restart(tmp_path, None, starts[4 + limit], 8, cause)
    again = read_task({**TASK, "SLURM_JOB_ID": "32", "SLURM_RESTART_COUNT": "0"})
    record_restart(tmp_path, None, again, 8, cause)  # submitted again: it counts anew


def test_restarts_on_this_machine_count_one_by_one(tmp_path: Path) -> None:
    local = {"SUBMITIT_LOCAL_JOB_ID": "7", "SUBMITIT_LOCAL_GLOBALID": "0", "SUBMITIT_LOCAL_NTASKS": "2",
             "SUBMITIT_LOCAL_LOCALID": "0"}  # fmt: skip
    for _ in range(PATIENCE["timeout"].starts):
        record_restart(tmp_path, None, read_task(local), 0, "timeout")
    with pytest.raises(ClusterError, match="3 starts in a row"):
        record_restart(tmp_path, None, read_task(local), 0, "timeout")


HOLD = """
import sys, time
from pathlib import Path
from pokevla.jobs.task.job_lock import job_lock
with job_lock(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def running(tmp_path: Path, tiny_run_env: dict[str, str]):
    """A process that holds the run for the job it is part of."""
    job_id = f"local-{os.getpid()}"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), job_id], env=tiny_run_env, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_second_job_on_a_run_is_refused(running: subprocess.Popen[str], tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"in use by another process. It is process \d+ on .*, job local-"),
        job_lock(tmp_path, "local-1"),
    ):
        pass


def test_lock_of_a_job_that_crashed_is_taken_over(running: subprocess.Popen[str], tmp_path: Path) -> None:
    running.kill()
    running.wait()
    assert holder(tmp_path) == f"local-{os.getpid()}"
    with job_lock(tmp_path, "local-1"):
        assert holder(tmp_path) == "local-1"
    assert holder(tmp_path) is None
    refuse_second_job(tmp_path)


def test_restarted_job_waits_for_its_former_self(running: subprocess.Popen[str], tmp_path: Path) -> None:
    same = f"local-{os.getpid()}"
    with pytest.raises(ClusterError, match="its previous start still holds"), job_lock(tmp_path, same, patience_s=0.0):
        pass
    running.kill()
    running.wait()
    with job_lock(tmp_path, same, patience_s=0.0):
        assert holder(tmp_path) == same
