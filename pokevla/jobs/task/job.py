"""What runs on the cluster. A job knows only its directory and reads recipe, code, checkpoints and pieces there.

    srun -> submitit (one task per rank) -> Job() -> training, cache shards or trials

submitit's own requeueing is not used: its signal handler acts on rank 0 only and at any point of the program, counts
every time limit of ten minutes or less as "timed out", gives up after a number of timeouts, and fails if the job has
already been requeued (submitit 1.5.4). We install our own handlers first.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pokevla.errors import DataError, HangError, PokeVLAError, Requeued
from pokevla.files.streams import replace_unprintable
from pokevla.jobs.code_copy import require_code_copy
from pokevla.jobs.launcher import Launcher, launcher_named, read_task
from pokevla.jobs.record import record_exit, remove_exit
from pokevla.jobs.task.job_task import JobTask, export_rendezvous
from pokevla.jobs.task.restarts import Cause, record_restart
from pokevla.recipe.kinds import AnyRecipe, kind_of
from pokevla.recipe.load import load_recipe
from pokevla.runs.directory import RECIPE

RENDEZVOUS_VARIABLE = "POKEVLA_RENDEZVOUS_TIMEOUT_S"
RENDEZVOUS_TIMEOUT_S = 300
"""How long ranks wait for each other: a job that has lost a rank should not occupy its nodes for long."""

HANG_PATIENCE_S = 40.0
"""Time for one rank to request a restart; less than the watchdog waits before it kills the process
(pokevla/training/health/watchdog.py)."""


@dataclass(frozen=True)
class Job:
    """A submitted job: all that is pickled."""

    folder: str  # absolute
    piece: int | None = None  # which piece, in a job array

    def __call__(self) -> str:
        """Run this task. A named error ends the process with its exit code."""
        replace_unprintable()
        folder = Path(self.folder)
        recipe = load_recipe(folder / RECIPE).recipe  # first: its extensions may add the launcher
        task = read_task()
        work = _work(folder, recipe, self.piece, task)
        remove_exit(folder, task.recorded_id, task.rank)
        _watch_signals(work)
        try:
            require_code_copy(folder)
            work.run()
        except Requeued as error:
            _end_interrupted(work, error)
        except PokeVLAError as error:
            _fail(work, error)
        except OSError as error:
            from pokevla.errors import NO_ROOM
            from pokevla.runs.checkpoints import save_error

            if error.errno not in NO_ROOM:
                raise
            _fail(work, save_error(error, Path(error.filename or folder)))
        return "finished"


@dataclass(frozen=True)
class Work:
    """The work of one task and its progress."""

    folder: Path
    piece: int | None
    task: JobTask
    launcher: Launcher
    run: Callable[[], None]
    progress: Callable[[], int]


def _work(folder: Path, recipe: AnyRecipe, piece: int | None, task: JobTask) -> Work:
    launcher = launcher_named(task.launcher)
    if kind_of(recipe).trains:
        work = Work(folder, piece, task, launcher, lambda: _train(work), lambda: _steps_saved(folder))
        return work
    from pokevla.jobs.pieces import pieces_done, run_piece

    return Work(folder, piece, task, launcher, lambda: run_piece(folder, piece), lambda: pieces_done(folder, piece))


def _train(work: Work) -> None:
    """One rank of a training run, from its newest checkpoint to its end."""
    from pokevla.jobs.task.job_lock import job_lock
    from pokevla.runs.ending import finished_step
    from pokevla.training.rank_main import run_rank

    folder, task = work.folder, work.task
    if finished_step(folder) is not None:  # requeued after its last step
        return
    export_rendezvous(task, folder, work.launcher.main_address(task))
    os.environ.setdefault(RENDEZVOUS_VARIABLE, str(RENDEZVOUS_TIMEOUT_S))
    with ExitStack() as stack:
        if task.is_main:
            stack.enter_context(job_lock(folder, task.recorded_id))
        run_rank(folder, on_hang=lambda error: _restart_after_hang(work, error))


def _steps_saved(folder: Path) -> int:
    from pokevla.runs.checkpoints import list_checkpoints

    checkpoints = list_checkpoints(folder)
    return checkpoints[-1][0] if checkpoints else 0


def _watch_signals(work: Work) -> None:
    """Install handlers for the time before training has installed its own, when there is nothing to save yet.

    Slurm sends both signals to all tasks; only rank 0 reacts. The others keep running, because rank 0 may already be
    training and need them; otherwise they end with it.
    """

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if work.task.is_main:
            reason = "timeout" if number == signal.SIGUSR2 else "terminated"
            _end_interrupted(work, Requeued("The job was asked to stop; there was nothing to save.", reason=reason))

    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGUSR2, on_signal)


def _end_interrupted(work: Work, error: Requeued) -> NoReturn:
    """End a task after the ranks have saved. On rank 0 the launcher decides whether to request a restart.

    Other ranks exit with 0; a non-zero code would make srun kill rank 0 before it has decided.
    """
    if not work.task.is_main:
        _exit_with(0, "")
    try:
        restart = work.launcher.restart_after_signal(work.task, error.reason)
        if restart is not None:
            _run_again(work, restart.cause, restart.why)
    except PokeVLAError as refused:
        _fail(work, refused)
    _fail(work, error)


def _restart_after_hang(work: Work, error: HangError) -> None:
    """Restart a hung job from its last checkpoint. Called by the watchdog of each rank once the stacks are on disk.

    Only one rank does it, to avoid conflicts over files: rank 0, or if rank 0 itself is silent, the lowest rank that is
    not. The others wait to be killed; a non-zero exit code of theirs would make srun kill that rank first.
    """
    from pokevla.telemetry.heartbeat import is_lowest_reporting, read_heartbeats

    try:
        decides = is_lowest_reporting(read_heartbeats(work.folder), work.task.rank)
    except (DataError, OSError):  # a damaged heartbeat must not keep the job from restarting
        decides = work.task.is_main
    if not decides:
        time.sleep(HANG_PATIENCE_S)
        return
    try:
        _run_again(work, "hang", str(error))
    except PokeVLAError as refused:
        _fail(work, refused)


def restart_killed_job(folder: Path, piece: int | None) -> None:
    """Restart a job from its last checkpoint after a task was killed, unless Slurm is ending the job. Ends the process.

    Called by the batch script after srun. The kill may be an out-of-memory kill, or a message for a former start of the
    job that Slurm delivered late.
    """
    recipe = load_recipe(folder / RECIPE).recipe
    work = _work(folder, recipe, piece, read_task())
    try:
        restart = work.launcher.restart_after_kill(work.task)
        if restart is not None:
            _run_again(work, restart.cause, restart.why)
    except PokeVLAError as refused:
        _fail(work, refused)


def _run_again(work: Work, cause: Cause | None, why: str = "Saved") -> NoReturn:
    """Request a restart and end the process. Repeated restarts for one cause without progress are an error."""
    if cause is not None:
        record_restart(work.folder, work.piece, work.task, work.progress(), cause)
    code = work.launcher.run_again(work.task)
    _exit_with(code, f"{why}; {'put back into the queue' if work.launcher.is_cluster else 'starting again'}.")


def _fail(work: Work, error: PokeVLAError) -> NoReturn:
    """Record a named error with the job and end with its exit code."""
    record_exit(work.folder, work.task.recorded_id, work.task.rank, error.exit_code, str(error))
    _exit_with(error.exit_code, str(error))


def _exit_with(code: int, text: str) -> NoReturn:
    """End this process at once. A regular interpreter exit could wait for ranks that no longer exist."""
    if text:
        print(text, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
