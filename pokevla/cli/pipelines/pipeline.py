"""Runs the stages of a pipeline recipe: commands as a user would type them, timed, and recorded when finished."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from pokevla.cli.pipelines.memory_sampler import MemorySampler
from pokevla.cli.pipelines.schedule import Schedule, usual_durations
from pokevla.errors import PokeVLAError, RecipeError, UsageError
from pokevla.files.failures import naming_errors
from pokevla.files.locks import advisory_lock
from pokevla.files.names import TEMPORARY, make_parents
from pokevla.files.ownership import foreign_entry, names_below, refuse_foreign
from pokevla.files.paths import expanded, literal_path
from pokevla.files.records import as_type
from pokevla.files.texts import read_json, write_json
from pokevla.packaged_recipes import find_recipe
from pokevla.recipe.kinds import AnyRecipe, kind_of
from pokevla.recipe.load import load_recipe, recipe_hash
from pokevla.recipe.schema import PipelineRecipe, Stage
from pokevla.runs.creation import run_lock
from pokevla.runs.directory import RUN_CONTENTS, holds_recipe, run_directory
from pokevla.telemetry.code_version import code_commit
from pokevla.telemetry.figures import duration

STAGES_FILE = "stages.json"


@dataclass(frozen=True)
class FinishedStage:
    """Record of a stage that has succeeded."""

    name: str
    command: str
    fingerprint: str  # of the command and the recipes it names; if it changes, the stage runs again
    seconds: float
    peak_memory_gib: float
    commit: str | None = None  # of the code that ran it; None outside a git checkout


class StageFailed(PokeVLAError):
    """A stage ended with an exit code other than 0; the pipeline ends with the same."""

    def __init__(self, stage: str, exit_code: int) -> None:
        super().__init__(f"Stage {stage} failed with exit code {exit_code}.", "See its message above.")
        self.exit_code = exit_code


def run_pipeline(
    recipe: PipelineRecipe, *, fresh: bool, announce: Callable[[str], None], program: list[str] | None = None
) -> list[FinishedStage]:
    """Run all stages in order; finished ones with an unchanged command are skipped unless `fresh`.

    Once a stage has run, all later ones run too: their input has changed. A stage made by another commit is kept (it
    took minutes, and most changes do not affect it), and `announce` says so. `announce` gets a line when a stage begins
    and one when it has finished, with the time that is left where it is known;
    `program` (default: this Python with pokevla.cli.main) is put before each stage's arguments. Raises StageFailed at
    the first failure; the stages before it stay finished.
    """
    output = recipe.output
    names = [stage.name for stage in recipe.stages]
    if len(set(names)) != len(names):
        raise RecipeError("stages: two stages have the same name.", "Give each its own name.")
    earlier = {stage.name: stage for stage in read_stages(output)}
    schedule = Schedule(usual_durations(recipe.stages, {name: stage.seconds for name, stage in earlier.items()}))
    if fresh:
        _empty(output)
    remembered = {} if fresh else earlier
    output.mkdir(parents=True, exist_ok=True)
    finished: list[FinishedStage] = []
    upstream_changed = False
    commit = code_commit()
    for number, stage in enumerate(recipe.stages, start=1):
        arguments = [argument.replace("{output}", literal_path(output)) for argument in stage.run]
        command, fingerprint = shlex.join(["pokevla", *arguments]), _fingerprint(arguments)
        before = remembered.get(stage.name)
        label = f"[{number}/{len(recipe.stages)}] {stage.name}"
        if before is not None and before.fingerprint == fingerprint and not upstream_changed:
            other = "" if before.commit == commit else f", by commit {(before.commit or 'unknown')[:10]}, not this one"
            announce(f"{label}: finished before, in {duration(before.seconds)}{other}")
            finished.append(before)
            continue
        announce(f"{label}: {command}{schedule.before(names[number - 1 :])}")
        _remove_run(arguments, output)
        upstream_changed = True
        _write_stages(output, finished)  # the old results of this and later stages no longer count
        with _files_recorded(output, finished):
            seconds, peak = _run_stage(stage, [*(program or default_program()), *arguments])
        finished.append(FinishedStage(stage.name, command, fingerprint, round(seconds, 1), round(peak, 2), commit))
        _write_stages(output, finished)
        announce(f"{label}: {schedule.after(stage.name, seconds, names[number:])}, peak memory {peak:.1f} GiB")
    return finished


@contextmanager
def pipeline_lock(output: Path) -> Iterator[None]:
    """Keep a second pipeline off the same output, which one of them might delete.

    Raises:
        UsageError: another process holds it; says which, and since when.
    """
    lock = output.absolute().with_name(f".{output.absolute().name}.lock")  # beside it: `--fresh` deletes the folder
    with naming_errors(lock):
        make_parents(lock)
    busy = f"The pipeline in {output} is being run by another process."
    with advisory_lock(lock, busy=busy, remedy="Wait until it ends, or choose another output: output=..."):
        yield


def default_program() -> list[str]:
    """The `pokevla` of this installation, whatever comes first in PATH."""
    return [sys.executable, "-m", "pokevla.cli.main"]


class _Stages(TypedDict):
    stages: list[FinishedStage]
    files: NotRequired[list[str]]


def read_stages(output: Path) -> list[FinishedStage]:
    """Stages that have finished in `output`; none when there is no such file."""
    path = output / STAGES_FILE
    if not path.exists():
        return []
    remedy = "Delete it, or start over with --fresh."
    return as_type(read_json(path, remedy=remedy), _Stages, path, remedy=remedy)["stages"]


def _write_stages(output: Path, stages: list[FinishedStage], new_files: Iterable[str] = ()) -> None:
    """Record the finished stages, and the files that a stage has written in addition to those recorded before."""
    files = sorted({*_recorded_files(output), *new_files})
    write_json(output / STAGES_FILE, {"stages": [asdict(stage) for stage in stages], "files": files})


@contextmanager
def _files_recorded(output: Path, finished: list[FinishedStage]) -> Iterator[None]:
    """Record the files that appear while a stage runs, also if it fails: only they may be deleted later."""
    before = set(names_below(output))
    try:
        yield
    finally:
        _write_stages(output, finished, set(names_below(output)) - before)


def _recorded_files(output: Path) -> list[str]:
    path = output / STAGES_FILE
    return as_type(read_json(path), _Stages, path).get("files", []) if path.is_file() else []


def _run_stage(stage: Stage, command: list[str]) -> tuple[float, float]:
    """Run one command and return (seconds, peak memory in GiB). It inherits our stdout and stderr."""
    started = time.monotonic()
    process = subprocess.Popen(command)
    with MemorySampler(process.pid) as sampler:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the terminal sent the interrupt to the stage as well: let it finish
            raise
    if code != 0:
        raise StageFailed(stage.name, code if code > 0 else 128 - code)
    return time.monotonic() - started, sampler.peak_gib


def _fingerprint(arguments: list[str]) -> str:
    """Hash of the arguments and of the resolved content of every recipe among them."""
    digest = hashlib.sha256()
    for argument in arguments:
        digest.update(argument.encode() + b"\0")
    for recipe in _recipes(arguments):
        digest.update(recipe_hash(recipe).encode())
    return digest.hexdigest()


def _recipes(arguments: list[str]) -> list[AnyRecipe]:
    """Recipes that a command names, with the overrides that follow them."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    files = (".yaml", ".yml")
    named = [argument for argument in arguments if not argument.startswith("-")]
    paths = [find_recipe(expanded(Path(name)) if name.endswith(files) else Path(name)) for name in named]
    return [load_recipe(path, overrides).recipe for path in paths if path.suffix in files and path.is_file()]


def _remove_run(arguments: list[str], output: Path) -> None:
    """Remove the run directory of a training that starts over, if it is inside the pipeline's own directory: `train`
    refuses an existing one."""
    for recipe in _recipes(arguments):
        if kind_of(recipe).trains:
            run = run_directory(recipe)
            if run.is_dir() and run.resolve().is_relative_to(output.resolve()):
                refuse_foreign(run, "run", RUN_CONTENTS, kind=UsageError)
                with run_lock(run):
                    shutil.rmtree(run)


def _empty(output: Path) -> None:
    """Delete the output of an earlier pipeline.

    Raises:
        UsageError: no pipeline made the directory, or something lies in it that no stage is known to have written.
    """
    if not output.exists():
        return
    if any(output.iterdir()) and not (output / STAGES_FILE).is_file():
        raise UsageError(f"{output} was not made by this pipeline (it has no {STAGES_FILE}).", "Remove it yourself.")
    foreign = _foreign_file(output)
    if foreign is not None:
        raise UsageError(
            f"{output} is not deleted: no stage is recorded to have written {foreign}.",
            "Move it elsewhere. If a stage that was killed has written it, remove it yourself.",
        )
    shutil.rmtree(output)


def _foreign_file(output: Path) -> Path | None:
    """The first file that is neither recorded, nor written by the pipeline itself, nor left by a killed writer."""
    known = {*_recorded_files(output), STAGES_FILE, "summary.json", "report.html"}
    for name in names_below(output):
        path, folder = output / name, output / Path(name).parts[0]
        left_by_kill = any(part.startswith(TEMPORARY) for part in Path(name).parts)
        if name in known or (left_by_kill and not path.is_symlink()):
            continue
        if not holds_recipe(folder) or foreign_entry(folder, RUN_CONTENTS) is not None:
            return path
    return None
