"""One training through a preemption, a requeue, a dead node, a time limit, a stray signal and a killed task.

It ends as an undisturbed one does.

The job is a real one on two nodes, the disturbances are Slurm's own. So that no test depends on how fast the machine
is, the ranks are held still (SIGSTOP) from the moment a step is seen until Slurm acts; it wakes them with its signals.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from pokevla.errors import UsageError
from pokevla.jobs.durations import parse_duration_s
from pokevla.jobs.record import read_jobs, task_log
from pokevla.jobs.stopping import stop_run
from pokevla.jobs.tracking import explain, job_state
from pokevla.runs.checkpoints import list_checkpoints
from pokevla.telemetry.jsonl import read_jsonl
from slurm.commands import parse_fields
from slurm.sandbox.sandbox import Sandbox

pytestmark = pytest.mark.timeout(1800)
STEPS = 80
"""Nine disturbances, each after three steps or so, and room for a slow look between a step and SIGSTOP."""
USR2_PENDING = 1 << (signal.SIGUSR2 - 1)
CACHE = """\
kind: cache
name: features
output: {output}
dataset: {dataset}
cache: {{root: {cache}, sam: {{preset: tiny}}, vggt: {{preset: tiny}}}}
"""


@dataclass
class Training:
    """A run on the cluster, and what was seen of it."""

    run_dir: Path
    job_id: str
    starts: int = 0  # that were seen to get on
    restarts: list[int] = field(default_factory=list)  # after each disturbance
    saved: list[int] = field(default_factory=list)  # newest checkpoint then
    seen: dict[str, Any] = field(default_factory=dict)

    def step(self) -> int:
        """Steps done in the newest start; 0 if that is one that was seen already."""
        starts = self.logged_starts()
        done = re.findall(r" INFO step (\d+) ", starts[-1]) if len(starts) > self.starts else []
        return int(done[-1]) if done else 0

    def logged_starts(self) -> list[str]:
        """What rank 0 has logged in each start that got as far as the loop."""
        log = self.run_dir / "logs" / "rank_00000.log"
        return log.read_text().split("training starts at step")[1:] if log.is_file() else []

    def ranks(self) -> list[psutil.Process]:
        """The processes of all ranks."""
        tasks = []
        for process in psutil.process_iter():
            try:
                words, variables = process.cmdline(), process.environ()
            except psutil.Error:
                continue
            is_task = "submitit.core._submit" in words and not words[0].endswith("srun")
            is_ours = variables.get("SLURM_CONF") == os.environ["SLURM_CONF"]
            if is_task and is_ours and variables.get("SLURM_JOB_ID") == self.job_id:
                tasks.append(process)
        own = {process.pid for process in tasks}  # a rank may just be starting a program: a copy of itself for a moment
        return [process for process in tasks if process.ppid() not in own]


@pytest.fixture(scope="module")
def recipes(shared: Path, toys: ModuleType) -> Callable[[str], Path]:
    """The toy post-training under a name, with the cache that it needs."""
    dataset = toys.write_toy_dataset(shared / "robot")

    def write(name: str) -> Path:
        places = {"output": shared / "runs", "dataset": dataset, "cache": shared / "cache"}
        text = CACHE if name == "features" else toys.RECIPE.replace("name: {name}", f"name: {name}")
        path = shared / f"{name}.yaml"
        path.write_text(text.format(name=name, **places))
        return path

    return write


def settings(nodes: int) -> list[str]:
    return [f"steps={STEPS}", "batch.global=4", "log.every_steps=1",
            "checkpoint.every_steps=100", "checkpoint.keep_last=9",
            f"resources.nodes={nodes}", "resources.time_limit=10:00:00"]  # fmt: skip


@contextmanager
def held_still(
    training: Training, after_step: int, wait_until: Callable[..., None], *, checkpoint: bool = False
) -> Iterator[list[psutil.Process]]:
    """Wait for a step, then stop all ranks; what has not been woken by the end of the block is.

    `checkpoint` also waits for a complete one: threads write it while the steps go on, which takes many of them on a
    busy machine.
    """

    def both_ranks() -> bool:
        assert job_state(training.job_id).is_active, task_log(training.run_dir, training.job_id).read_text()[-3000:]
        return training.step() >= 1 and len(training.ranks()) == 2

    def step_is_done() -> bool:  # nothing slow in here: the ranks run on
        is_saved = not checkpoint or any(training.run_dir.glob("checkpoints/step-*/COMPLETE.json"))
        return (training.step() >= after_step and is_saved) or not any(rank.is_running() for rank in ranks)

    ranks: list[psutil.Process] = []
    while not ranks or not are_stopped(ranks):  # again if Slurm ended this start at this very moment
        wait_until("the first step of two ranks", both_ranks)
        ranks = training.ranks()
        wait_until(f"step {after_step}", step_is_done, poll_s=0.05)
    assert training.step() < STEPS
    training.starts = len(training.logged_starts())
    try:
        yield ranks
    finally:
        for rank in ranks:
            if rank.is_running():
                rank.resume()


def are_stopped(ranks: list[psutil.Process]) -> bool:
    """Stop processes; if one of them has ended, none is stopped."""
    for number, rank in enumerate(ranks):
        try:
            rank.suspend()
        except psutil.NoSuchProcess:
            for stopped in ranks[:number]:
                with suppress(psutil.NoSuchProcess):
                    stopped.resume()
            return False
    return True


def nothing_is_queued(sandbox: Sandbox) -> bool:
    """Whether the controller has no message left for a node that did not answer.

    It sends them again every minute, and would end the job's next start with those meant for the one before.
    """
    fields = dict(line.split(":", 1) for line in sandbox.run("sdiag").splitlines() if line.startswith("Agent"))
    return all(int(fields[name]) == 0 for name in ("Agent queue size", "Agent count"))


def await_waking(ranks: list[psutil.Process], wait_until: Callable[..., None]) -> None:
    """Wait until Slurm has woken the ranks: it sends SIGCONT with its SIGTERM."""
    wait_until("Slurm's signals", lambda: not any(map(is_held, ranks)))


def is_held(process: psutil.Process) -> bool:
    """Whether a process is stopped by SIGSTOP."""
    return status_of(process) == psutil.STATUS_STOPPED


def status_of(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_DEAD


def note(
    sandbox: Sandbox,
    training: Training,
    restarts: int,
    ranks: list[psutil.Process],
    wait_until: Callable[..., None],
) -> None:
    """Wait until the ranks have ended and the job is back in the queue; remember how it stands.

    It is let go when no message for the former start is left: whether one finds the next start would be chance.
    """
    wait_until("the ranks end", lambda: not any(rank.is_running() for rank in ranks))
    wait_until(f"{restarts} restarts", lambda: job_state(training.job_id).restarts == restarts)
    wait_until("the job is pending", lambda: job_state(training.job_id).state == "PENDING")
    sandbox.run("scontrol", "hold", training.job_id)
    wait_until("the controller's queue of messages to be empty", lambda: nothing_is_queued(sandbox))
    sandbox.run("scontrol", "release", training.job_id)
    training.restarts.append(restarts)
    training.saved.append(list_checkpoints(training.run_dir)[-1][0])


@pytest.fixture(scope="module")
def disturbed(
    sandbox: Sandbox, pokevla, recipes: Callable[[str], Path], shared: Path, wait_until: Callable[..., None]
) -> Training:
    """The whole story; each test looks at one part of it."""
    done = pokevla("submit", recipes("features"), "--then", " ".join([str(recipes("disturbed")), *settings(nodes=2)]))
    assert done.returncode == 0, done.stderr
    run_dir = shared / "runs" / "disturbed"
    training = Training(run_dir, read_jobs(run_dir)[0].job_id)
    cache = read_jobs(shared / "runs" / "features")[0]
    training.seen["cache"] = cache
    training.seen["while waiting"] = pokevla("submit", recipes("disturbed"), *settings(nodes=2))

    with held_still(training, 3, wait_until) as ranks:
        training.seen["cache state"] = job_state(cache.job_id)
        high = sandbox.run(
            "sbatch", "--parsable", "--output=/dev/null", "--partition=high", "--nodes=2", "--exclusive", "--wrap=true"
        ).strip()
        await_waking(ranks, wait_until)
    note(sandbox, training, 1, ranks, wait_until)
    with held_still(training, training.saved[-1] + 3, wait_until) as ranks:
        training.seen["after preemption"] = job_state(high)
        sandbox.run("scontrol", "requeue", training.job_id)
        await_waking(ranks, wait_until)
    note(sandbox, training, 2, ranks, wait_until)
    with held_still(training, training.saved[-1] + 3, wait_until) as ranks:
        training.seen["lost"] = training.saved[-1] + 3  # at least
        sandbox.kill_node("n2")
    note(sandbox, training, 3, ranks, wait_until)
    sandbox.start_node("n2")
    with held_still(training, training.saved[-1] + 3, wait_until) as ranks:
        # As if it had been running for hours: the limit is nearer than the lead of the warning.
        limit = f"TimeLimit={run_minutes(sandbox, training.job_id) + 4}"
        sandbox.run("scontrol", "update", f"JobId={training.job_id}", limit)
        wait_until("Slurm's warning", lambda: all(is_warned(rank) for rank in ranks))
    note(sandbox, training, 4, ranks, wait_until)
    sandbox.run("scontrol", "update", f"JobId={training.job_id}", "TimeLimit=600")
    with held_still(training, training.saved[-1] + 3, wait_until) as ranks:
        ranks[0].terminate()  # a SIGTERM that nothing on record explains
    note(sandbox, training, 5, ranks, wait_until)
    with held_still(training, training.saved[-1] + 3, wait_until) as ranks:
        ranks[1].kill()
    note(sandbox, training, 6, ranks, wait_until)
    with held_still(training, training.saved[-1] + 3, wait_until):
        training.seen["stop"] = stop_run(run_dir)
    wait_until("the job ends", lambda: not job_state(training.job_id).is_active)
    training.saved.append(list_checkpoints(run_dir)[-1][0])
    training.seen["stopped"] = (job_state(training.job_id), explain(run_dir))
    training.seen["again"] = submit_again(training, pokevla, recipes)
    with held_still(training, training.saved[-1] + 3, wait_until):
        sandbox.run("scancel", training.job_id)
    wait_until("the job ends", lambda: not job_state(training.job_id).is_active)
    training.saved.append(list_checkpoints(run_dir)[-1][0])
    training.seen["cancelled"] = job_state(training.job_id)
    submit_again(training, pokevla, recipes)
    wait_until("the end", lambda: not job_state(training.job_id).is_active)
    training.seen["end"] = job_state(training.job_id)
    return training


def submit_again(training: Training, pokevla, recipes: Callable[[str], Path]) -> str:
    """Submit the run's recipe once more; returns what the command said on stderr."""
    done = pokevla("submit", recipes("disturbed"), *settings(nodes=2))
    assert done.returncode == 0, done.stderr
    training.job_id = read_jobs(training.run_dir)[-1].job_id
    return done.stderr


def run_minutes(sandbox: Sandbox, job_id: str) -> int:
    """Minutes since the job's start, as its limit counts them."""
    (line,) = sandbox.run("scontrol", "--oneliner", "show", "job", job_id).splitlines()
    return (parse_duration_s(parse_fields(line)["RunTime"]) or 0) // 60


def is_warned(process: psutil.Process) -> bool:
    """Whether the signal waits for a stopped process, or Slurm has woken it too, as some versions do."""
    if not is_held(process):
        return True
    status = Path(f"/proc/{process.pid}/status").read_text()
    pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return any(bits & USR2_PENDING for bits in pending)


@pytest.fixture(scope="module")
def undisturbed(disturbed: Training, pokevla, recipes: Callable[[str], Path], shared: Path) -> Path:
    """The same training, left alone, through `pokevla submit --local`."""
    done = pokevla("submit", "--local", recipes("undisturbed"), *settings(nodes=1))
    assert done.returncode == 0, done.stdout + done.stderr
    return shared / "runs" / "undisturbed"


def test_preempted_job_saves_gives_way_and_comes_back(disturbed: Training) -> None:
    assert disturbed.restarts[0] == 1
    assert disturbed.saved[0] >= 3
    assert disturbed.seen["after preemption"].state == "COMPLETED"


def test_requeued_job_saves_and_goes_on(disturbed: Training) -> None:
    assert disturbed.restarts[1] == 2
    assert disturbed.saved[1] >= disturbed.saved[0] + 3


def test_job_that_loses_a_node_goes_on_from_its_last_checkpoint(disturbed: Training) -> None:
    assert disturbed.restarts[2] == 3
    assert disturbed.saved[2] == disturbed.saved[1] < disturbed.seen["lost"]


def test_job_at_its_time_limit_saves_and_asks_to_run_again(disturbed: Training) -> None:
    assert disturbed.restarts[3] == 4
    assert disturbed.saved[3] >= disturbed.saved[2] + 3
    reasons = [row["reason"] for row in read_jsonl(disturbed.run_dir / "events.jsonl") if row["event"] == "stopped"]
    assert reasons == ["terminated", "terminated", "timeout", "terminated", "terminated", "terminated"]


def test_unexplained_signal_does_not_end_the_run(disturbed: Training) -> None:
    assert disturbed.restarts[4] == 5
    assert disturbed.saved[4] >= disturbed.saved[3] + 3


def test_job_of_which_a_task_is_killed_goes_on_from_its_last_checkpoint(disturbed: Training) -> None:
    assert disturbed.restarts[5] == 6
    assert disturbed.saved[5] == disturbed.saved[4]


def test_stopped_job_saves_and_does_not_come_back_by_itself(disturbed: Training) -> None:
    state, why = disturbed.seen["stopped"]
    assert disturbed.seen["stop"] == [f"job {first_job(disturbed)} was asked to save and end"]
    assert (state.state, state.exit_code, state.restarts) == ("FAILED", 75, 6)
    assert disturbed.saved[6] >= disturbed.saved[5] + 3
    assert f"saved at step {disturbed.saved[6]}" in (why or "")
    assert f"continues from step {disturbed.saved[6]}" in disturbed.seen["again"]


def test_cancelled_job_saves_and_does_not_come_back(disturbed: Training) -> None:
    state = disturbed.seen["cancelled"]
    assert (state.state, state.restarts) == ("CANCELLED", 0)
    assert disturbed.saved[7] >= disturbed.saved[6] + 3


def test_message_for_a_former_start_does_not_end_the_run(
    disturbed: Training,
    undisturbed: Path,
    sandbox: Sandbox,
    pokevla,
    recipes: Callable[[str], Path],
    wait_until: Callable[..., None],
) -> None:
    """A node dies and is back at once: Slurm's message to end the old step reaches the new one, a minute later.

    `disturbed`: there the cache is built.
    """
    done = pokevla("submit", recipes("late"), *settings(nodes=2))
    assert done.returncode == 0, done.stderr
    run_dir = undisturbed.parent / "late"
    training = Training(run_dir, read_jobs(run_dir)[0].job_id)
    with held_still(training, 3, wait_until):
        sandbox.kill_node("n2")
    wait_until("a restart", lambda: job_state(training.job_id).restarts)
    sandbox.start_node("n2")
    with held_still(training, 3, wait_until) as ranks:
        wait_until("the message", lambda: not all(map(is_held, ranks)) or nothing_is_queued(sandbox))
    wait_until("the end", lambda: not job_state(training.job_id).is_active)

    assert job_state(training.job_id).state == "COMPLETED"
    # Whether the message finds a step to end, and how often, depends on when Slurm has noticed the death.
    assert (job_state(training.job_id).restarts or 0) >= 1
    weights = [run / "export" / "model.safetensors" for run in (run_dir, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize("stuck", [0, 1])
def test_job_whose_rank_hangs_is_started_again_and_goes_on(
    disturbed: Training,
    undisturbed: Path,
    pokevla,
    recipes: Callable[[str], Path],
    wait_until: Callable[..., None],
    stuck: int,
) -> None:
    """`disturbed`: there the cache is built."""
    changes = ["resources.nodes=2", "checkpoint.every_steps=5", "guards.step_timeout_s=20"]
    done = pokevla("submit", recipes(f"hung{stuck}"), *settings(nodes=2), *changes)
    assert done.returncode == 0, done.stderr
    run_dir = undisturbed.parent / f"hung{stuck}"
    training = Training(run_dir, read_jobs(run_dir)[0].job_id)
    with held_still(training, 3, wait_until, checkpoint=True) as ranks:
        (other,) = [rank for rank in ranks if rank.environ()["SLURM_PROCID"] != str(stuck)]
        other.resume()
        wait_until("a restart", lambda: not job_state(training.job_id).is_active or job_state(training.job_id).restarts)
    wait_until("the end", lambda: not job_state(training.job_id).is_active)

    assert job_state(training.job_id).state == "COMPLETED"
    assert job_state(training.job_id).restarts == 1
    events = [row["event"] for row in read_jsonl(run_dir / "events.jsonl") if row["event"] != "saved"]
    assert events == ["started", "hang", "resumed", "finished"]
    assert (run_dir / "logs" / f"rank_{1 - stuck:05d}.hang").is_file()
    weights = [run / "export" / "model.safetensors" for run in (run_dir, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_disturbed_training_ends_with_the_weights_of_an_undisturbed_one(disturbed: Training, undisturbed: Path) -> None:
    assert disturbed.seen["end"].state == "COMPLETED"
    weights = [run / "export" / "model.safetensors" for run in (disturbed.run_dir, undisturbed)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    steps = [row["step"] for row in read_jsonl(disturbed.run_dir / "metrics.jsonl") if "loss" in row]
    assert steps == list(range(1, STEPS + 1)), "curves fold back, or miss a step"


def test_chain_builds_its_cache_in_an_array_before_it_trains(disturbed: Training) -> None:
    cache, state = disturbed.seen["cache"], disturbed.seen["cache state"]
    assert cache.array_size == 2
    assert state.state == "COMPLETED"
    assert "2 of 2 known tasks done" in state.reason
    assert read_jobs(disturbed.run_dir)[0].after == (cache.job_id,)


def first_job(training: Training) -> str:
    return read_jobs(training.run_dir)[0].job_id


def test_second_job_on_a_run_is_refused(disturbed: Training) -> None:
    refused = disturbed.seen["while waiting"]
    assert refused.returncode == 2
    assert f"already has a job: {first_job(disturbed)}" in refused.stderr


def test_finished_run_is_not_submitted_again(disturbed: Training, pokevla, recipes: Callable[[str], Path]) -> None:
    again = pokevla("submit", recipes("disturbed"), *settings(nodes=2))
    assert again.returncode == 2
    assert "is finished" in again.stderr


def test_run_that_has_ended_cannot_be_stopped(disturbed: Training) -> None:
    with pytest.raises(UsageError, match=r"No job of .* is running or queued"):
        stop_run(disturbed.run_dir)
    assert (explain(disturbed.run_dir) or "").endswith("COMPLETED")
