"""What runs on the cluster. A job knows nothing but its directory: recipe, code, checkpoints, pieces are read there.

    srun -> submitit (one task per rank) -> Job() -> training, cache shards or trials

submitit's own way of requeueing is not used: its handler acts on rank 0 alone and between any two bytecodes, counts
every limit of ten minutes or less as "timed out", gives up after a number of timeouts, and dies when the job has been
put back into the queue already (submitit 1.5.4). Here the signal handlers are ours from the first line on.
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

from pokevla.errors import HangError, PokeVLAError, Requeued
from pokevla.jobs.code_copy import require_code_copy
from pokevla.jobs.launcher import Launcher, launcher_named, read_place
from pokevla.jobs.record import forget_exit, note_exit
from pokevla.jobs.task.place import Place, export_rendezvous
from pokevla.jobs.task.restarts import Cause, note_restart
from pokevla.recipe.kinds import AnyRecipe, kind_of
from pokevla.recipe.load import load_recipe
from pokevla.runs.directory import RECIPE

RENDEZVOUS_VARIABLE = "POKEVLA_RENDEZVOUS_TIMEOUT_S"
RENDEZVOUS_TIMEOUT_S = 300
"""How long ranks wait for each other: a job that lost a rank should not hold its nodes for long."""

HANG_PATIENCE_S = 40.0
"""Time for one rank to ask for a restart: within the watchdog's last resort (pokevla/training/health/watchdog.py)."""


@dataclass(frozen=True)
class Job:
    """The whole of a submitted job, and all that is pickled of it."""

    folder: str  # absolute
    piece: int | None = None  # which piece, in a job array

    def __call__(self) -> str:
        """Run this task to its end. The process leaves with the exit code of a named error."""
        folder = Path(self.folder)
        recipe = load_recipe(folder / RECIPE).recipe  # first: its extensions may add the launcher
        place = read_place()
        work = _work(folder, recipe, self.piece, place)
        forget_exit(folder, place.recorded_id, place.rank)
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
    """One task's work, and how far it is."""

    folder: Path
    piece: int | None
    place: Place
    launcher: Launcher
    run: Callable[[], None]
    progress: Callable[[], int]


def _work(folder: Path, recipe: AnyRecipe, piece: int | None, place: Place) -> Work:
    launcher = launcher_named(place.launcher)
    if kind_of(recipe).trains:
        work = Work(folder, piece, place, launcher, lambda: _train(work), lambda: _steps_saved(folder))
        return work
    from pokevla.jobs.pieces import pieces_done, run_piece

    return Work(folder, piece, place, launcher, lambda: run_piece(folder, piece), lambda: pieces_done(folder, piece))


def _train(work: Work) -> None:
    """One rank of a training run, from its newest checkpoint to its end."""
    from pokevla.jobs.task.job_lock import job_lock
    from pokevla.runs.ending import finished_step
    from pokevla.training.rank_main import run_rank

    folder, place = work.folder, work.place
    if finished_step(folder) is not None:  # requeued after its last step
        return
    export_rendezvous(place, folder, work.launcher.main_address(place))
    os.environ.setdefault(RENDEZVOUS_VARIABLE, str(RENDEZVOUS_TIMEOUT_S))
    with ExitStack() as stack:
        if place.is_main:
            stack.enter_context(job_lock(folder, place.recorded_id))
        run_rank(folder, on_hang=lambda error: _run_hung_again(work, error))


def _steps_saved(folder: Path) -> int:
    from pokevla.runs.checkpoints import list_checkpoints

    checkpoints = list_checkpoints(folder)
    return checkpoints[-1][0] if checkpoints else 0


def _watch_signals(work: Work) -> None:
    """Handlers for as long as training has not set its own, and again after it has ended: there is nothing to save.

    Slurm sends both signals to all tasks, and rank 0 answers. The others may be needed still, by a rank 0 that is in
    its training already; if not, they end with it.
    """

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if work.place.is_main:
            reason = "timeout" if number == signal.SIGUSR2 else "terminated"
            _end_interrupted(work, Requeued("It was asked to stop; nothing had to be saved.", reason=reason))

    signal.signal(signal.SIGCONT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGUSR2, on_signal)


def _end_interrupted(work: Work, error: Requeued) -> NoReturn:
    """After the ranks have saved. Rank 0 decides; the others just end, well: a bad end of theirs would make srun kill
    rank 0 before it has.

    Whether it asks to be started again, the launcher knows.
    """
    if not work.place.is_main:
        _leave(0, "")
    try:
        restart = work.launcher.restart_after_signal(work.place, error.reason)
        if restart is not None:
            _run_again(work, restart.cause, restart.why)
    except PokeVLAError as refused:
        _fail(work, refused)
    _fail(work, error)


def _run_hung_again(work: Work, error: HangError) -> None:
    """Called by the watchdog of each rank that hangs, when stacks are on the disk: have the job started again from its
    last checkpoint. One rank does, so that none fails over another's files: rank 0, or if that is what hangs, the
    lowest that is heard of. The others wait to be ended: a bad end of theirs would make srun kill that one before.
    """
    from pokevla.telemetry.heartbeat import read_heartbeats, speaks_for_all

    if not speaks_for_all(read_heartbeats(work.folder), work.place.rank):
        time.sleep(HANG_PATIENCE_S)
        return
    try:
        _run_again(work, "hang", str(error))
    except PokeVLAError as refused:
        _fail(work, refused)


def run_killed_again(folder: Path, piece: int | None) -> None:
    """After srun, in the job's script: a task was killed (out of memory, or a message for a former start that Slurm
    delivers late). The job goes on from its last checkpoint, unless Slurm has decided otherwise. Leaves the process.
    """
    recipe = load_recipe(folder / RECIPE).recipe
    work = _work(folder, recipe, piece, read_place())
    try:
        restart = work.launcher.restart_after_kill(work.place)
        if restart is not None:
            _run_again(work, restart.cause, restart.why)
    except PokeVLAError as refused:
        _fail(work, refused)


def _run_again(work: Work, cause: Cause | None, why: str = "Saved") -> NoReturn:
    """Have the job started again, and leave. Too often for the same cause without progress is an error."""
    if cause is not None:
        note_restart(work.folder, work.piece, work.place, work.progress(), cause)
    code = work.launcher.run_again(work.place)
    _leave(code, f"{why}; {'put back into the queue' if work.launcher.is_cluster else 'starting again'}.")


def _fail(work: Work, error: PokeVLAError) -> NoReturn:
    """End with the exit code of a named error, which is kept with the job."""
    note_exit(work.folder, work.place.recorded_id, work.place.rank, error.exit_code, str(error))
    _leave(error.exit_code, str(error))


def _leave(code: int, text: str) -> NoReturn:
    """End this process now. An orderly end of the interpreter could wait for ranks that are gone."""
    if text:
        print(text, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
