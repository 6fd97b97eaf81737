"""Runs on every rank: `python engine_scenarios.py POSTTRAIN_RECIPE PRETRAIN_RECIPE OUT`.

The results go to OUT/rank_R.json for the tests. All scenarios share one process group, because starting it costs more
than running all of them. Stage 3 runs last: it makes DeepSpeed patch `torch.nn.functional.linear` for the rest of the
process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import hashlib
import json
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import guard_scenarios
import torch
import torch.distributed as dist

from pokevla.data.loader import TrainLoader, build_loader
from pokevla.distributed.engine import join_ranks, leave_ranks
from pokevla.distributed.environment import read_rank
from pokevla.distributed.process import die_with_parent
from pokevla.embodiment.libero import LIBERO
from pokevla.errors import PokeVLAError
from pokevla.files.checksums import measure_file
from pokevla.recipe.kinds import TrainingRecipe, training_of
from pokevla.recipe.load import load_recipe
from pokevla.runs.checkpoints import (
    MARKER,
    STATE,
    CheckpointInfo,
    checkpoint_folder,
    list_checkpoints,
    read_info,
    write_info,
)
from pokevla.telemetry.jsonl import EventLog, read_jsonl
from pokevla.telemetry.manifest import write_manifest
from pokevla.telemetry.writers import MetricWriter
from pokevla.training.building import build_callbacks, build_state, build_trainer
from pokevla.training.callbacks import StepResult
from pokevla.training.loop import Trainer
from pokevla.training.restoring import RunState, restore
from pokevla.training.saving import Saver
from pokevla.training.tasks import Task, build_task
from pokevla.training.validation import Validation
from pokevla.weights.base_model import build_base
from pokevla.weights.zero_layout import open_checkpoint

RECIPES = {"posttrain": Path(sys.argv[1]), "pretrain": Path(sys.argv[2])}
OUT = Path(sys.argv[3])
RESULTS: dict[str, Any] = {}


class Collector:
    """A callback that keeps every result."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def after_step(self, result: Any) -> None:
        self.results.append(result)

    @property
    def norms(self) -> list[float | None]:
        return [result.grad_norm for result in self.results]

    @property
    def losses(self) -> list[float]:
        return [float(result.values["loss"]) for result in self.results]


class Spoiled:
    """A loader whose micro-batches of one step contain NaN."""

    def __init__(self, loader: Any, bad_position: int) -> None:
        self.loader, self.bad_position = loader, bad_position

    @property
    def position(self) -> int:
        return self.loader.position

    def __next__(self) -> Any:
        batch = next(self.loader)
        if int(batch.positions[0]) == self.bad_position:
            batch.actions[:] = torch.nan
        return batch


@dataclasses.dataclass
class Job:
    """The parts of a run, as `pokevla.training.rank_main.train` builds them."""

    recipe: TrainingRecipe
    task: Task
    run_dir: Path
    trainer: Trainer
    state: RunState
    saver: Saver

    def loader(self, step: int) -> TrainLoader[Any]:
        return build_loader(
            self.recipe,
            self.task.mixture,
            self.task.samples,
            rank=INFO.rank,
            world_size=INFO.world_size,
            start_position=step * self.recipe.batch.global_,
        )

    def restore(self) -> CheckpointInfo:
        return restore(self.trainer.engine, self.state, self.run_dir, INFO, DEVICE)

    def save(self, result: StepResult) -> bool:
        """Save outside the schedule, and return when the checkpoint is on disk."""
        return self.saver.save(result, wait=True)

    def callbacks(self, writer: MetricWriter, events: EventLog | None) -> list[Any]:
        return build_callbacks(self.recipe, self.task, self.trainer, self.state, self.run_dir, writer, events)


def make(name: str, *overrides: str, task_kind: str = "posttrain") -> Job:
    """A run of six steps, unless the overrides set another number."""
    steps = [] if any(override.startswith("steps=") for override in overrides) else ["steps=6"]
    recipe = training_of(load_recipe(RECIPES[task_kind], [*overrides, *steps]).recipe)
    assert recipe is not None
    task = build_task(recipe, INFO)
    run_dir = OUT / name
    run_dir.mkdir(parents=True, exist_ok=True)
    if INFO.is_main and not (run_dir / "manifest.json").is_file():
        write_manifest(run_dir)
    dist.barrier()
    trainer = build_trainer(recipe, task, INFO, DEVICE)
    state = build_state(recipe, task, INFO, trainer.guards)
    saver = Saver(trainer.engine, run_dir, recipe.checkpoint, state.checkpoint_info)
    return Job(recipe, task, run_dir, trainer, state, saver)


def weights(job: Job) -> dict[str, torch.Tensor]:
    """Full trained weights on every rank (gathered with ZeRO stage 3)."""
    import deepspeed

    named = [(name, p) for name, p in job.trainer.engine.module.named_parameters() if p.requires_grad]
    with deepspeed.zero.GatheredParameters([p for _, p in named], enabled=job.recipe.zero.stage == 3):
        return {name: p.detach().float().clone() for name, p in named}


def fingerprint(job: Job) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(weights(job).items()):
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def moments(job: Job) -> str:
    """Hash of AdamW's state on this rank."""
    digest = hashlib.sha256()
    for state in job.trainer.optimizer.state.values():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            digest.update(torch.as_tensor(state[key]).float().numpy().tobytes())
    return digest.hexdigest()


def run(job: Job, start: int, stop: int, spoil: int | None = None) -> Collector:
    """Run the steps [start, stop) of a run."""
    collector = Collector()
    with job.loader(start) as loader:
        source: Any = loader if spoil is None else Spoiled(loader, spoil)

        class Stop:
            def after_step(self, result: Any) -> None:
                if result.step == stop:
                    raise StopIteration

        with contextlib.suppress(StopIteration):
            job.trainer.run(source, start, [collector, Stop()])
    return collector


def result_of(collector: Collector) -> Any:
    return collector.results[-1]


def scenario(function: Callable[..., Any], *arguments: Any) -> None:
    try:
        RESULTS[function.__name__] = function(*arguments)
        write_results()
    except Exception as error:
        RESULTS[function.__name__] = {"failed": f"{type(error).__name__}: {error}"}
        raise


# ------------------------------------------------------------------------------------------------ scenarios


def accumulation_is_one_big_batch() -> dict[str, Any]:
    outcome = {}
    for name, micro in (("accumulated", 2), ("whole", 4)):
        job = make(name, f"batch.micro={micro}", "lora.dropout=0.0", "zero.stage=1")
        collector = run(job, 0, 3)
        outcome[name] = {"norms": collector.norms, "weights": weights(job)}
    a, b = outcome["accumulated"].pop("weights"), outcome["whole"].pop("weights")
    outcome["largest_difference"] = max(float((a[name] - b[name]).abs().max()) for name in a)
    return outcome


def measuring_norms_changes_nothing() -> dict[str, Any]:
    outcome = {}
    for stage in (0, 1, 2):
        for every in (0, 1):
            job = make("norms", f"log.grad_norms_every_steps={every}", f"zero.stage={stage}")
            collector = run(job, 0, 3)
            outcome[f"{stage}/{every}"] = fingerprint(job)
        outcome["norms"] = collector.results[-1].loss_norms
    return outcome


def applied_rates() -> dict[str, Any]:
    job = make("rates", "zero.stage=2", "optim.lr=0.01")
    applied: list[float] = []
    job.trainer.optimizer.register_step_pre_hook(lambda optimizer, *_: applied.append(optimizer.param_groups[0]["lr"]))
    run(job, 0, 6)
    return {"applied": applied}


def resume_is_exact(stage: int, precision: str) -> dict[str, Any]:
    """A run that saves and continues, and one that resumes: pre-training with two micro-batches per step, post-training
    with one, and with two where DeepSpeed keeps its own sums of gradients."""
    cases = [("pretrain", 2), ("posttrain", 1)]
    if stage >= 2 and precision == "bf16":
        cases.append(("posttrain", 2))
    return {
        f"{kind}/{accumulation}": _resume_is_exact(stage, precision, kind, accumulation) for kind, accumulation in cases
    }


def _resume_is_exact(stage: int, precision: str, kind: str, accumulation: int) -> dict[str, Any]:
    length = "epochs=null" if kind == "pretrain" else "seed=7"
    settings = (f"zero.stage={stage}", f"precision={precision}", f"batch.micro={4 // accumulation}", length, "steps=6")
    name = f"exact-{stage}-{precision}-{kind}-{accumulation}"
    whole = make(name, *settings, task_kind=kind)
    whole.save(result_of(run(whole, 0, 2)))
    full = run(whole, 2, 4)
    resumed = make(name, *settings, task_kind=kind)
    info = resumed.restore()
    rest = run(resumed, info.step, 4)
    return {
        "weights": [fingerprint(whole), fingerprint(resumed)],
        "moments": [moments(whole), moments(resumed)],
        "losses": [full.losses, rest.losses],
        "norms": [full.norms, rest.norms],
        "position": info.position,
    }


def saving_changes_nothing() -> dict[str, Any]:
    """Write a checkpoint while the loop waits, and in a thread while training continues."""
    outcome: dict[str, Any] = {}
    for name, setting in (("none", None), ("direct", "false"), ("background", "true")):
        job = make(f"saving-{name}", f"checkpoint.background={setting or 'false'}")
        first = run(job, 0, 1)
        if setting is not None:
            job.saver.save(result_of(first), wait=False)
        second = run(job, 1, 2)
        job.saver.complete_pending(result_of(second))
        run(job, 2, 3)
        outcome[name] = {"weights": fingerprint(job), "complete": [s for s, _ in list_checkpoints(job.run_dir)]}
        if setting is not None:
            outcome[name]["resumed"] = make(f"saving-{name}").restore().step
    return outcome


def export_equals_engine(stage: int, precision: str) -> dict[str, Any]:
    """Compare weights consolidated from a checkpoint with those in the engine, and the engine's buffers with those
    before the first step."""
    job = make(f"export-{stage}-{precision}", f"zero.stage={stage}", f"precision={precision}")
    job.save(result_of(run(job, 0, 2)))
    folder = checkpoint_folder(job.run_dir, 2)
    stored = open_checkpoint(folder, job.state.at(2, 16))
    state = {name: stored.read(name) for name in stored.specs}
    inside = weights(job)
    rounded = torch.bfloat16 if precision == "bf16" else torch.float32
    difference = max(
        float((state[n.removeprefix("model.")].to(rounded).float() - v).abs().max()) for n, v in inside.items()
    )
    unrounded = max(float((state[n.removeprefix("model.")] - v).abs().max()) for n, v in inside.items())
    exact = dict(build_base(job.recipe, LIBERO).named_buffers())
    buffers = {name.removeprefix("model."): b for name, b in job.trainer.engine.module.named_buffers()}
    changed = [name for name, buffer in exact.items() if not torch.equal(buffers[name].cpu(), buffer)]
    return {
        "difference": difference,
        "unrounded": unrounded,
        "changed_buffers": changed,
        "buffers": [name for name in state if name in exact],
    }


def nan_is_skipped_together(stage: int, precision: str) -> dict[str, Any]:
    """Step 2's batch is bad on rank 1 only."""
    job = make(f"nan-{stage}-{precision}", f"zero.stage={stage}", f"precision={precision}")
    run(job, 0, 1)
    before = (fingerprint(job), moments(job))
    bad = 8 + 2 if INFO.rank == 1 else -1  # first position of rank 1's first micro-batch in the second step
    skipped = run(job, 1, 2, spoil=bad)
    after = (fingerprint(job), moments(job))
    later = run(job, 2, 4)
    return {
        "norm": skipped.norms,
        "unchanged": [before[0] == after[0], before[1] == after[1]],
        "later": later.norms,
        "moved": fingerprint(job) != after[0],
    }


def half_and_damaged_checkpoints() -> dict[str, Any]:
    job = make("damage")
    for step in (1, 2, 3):
        job.save(result_of(run(job, step - 1, step)))
        dist.barrier()
        if step == 1 and INFO.is_main:  # keep it although only two are kept
            checkpoint_folder(job.run_dir, 1).rename(OUT / "damage-step-1")
        dist.barrier()
    if INFO.is_main:
        (OUT / "damage-step-1").rename(checkpoint_folder(job.run_dir, 1))
        (checkpoint_folder(job.run_dir, 3) / MARKER).unlink()  # incomplete
        part = next((checkpoint_folder(job.run_dir, 2) / STATE).glob("*optim*"))
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
    dist.barrier()
    step = make("damage").restore().step
    events = [row["event"] for row in read_jsonl(job.run_dir / "events.jsonl")] if INFO.is_main else []
    return {"step": step, "events": events}


def a_file_that_one_rank_cannot_load() -> dict[str, Any]:
    """It was whole when rank 0 verified it: another disk or machine fails, or it goes bad in between."""
    job = make("unloadable")
    for step in (1, 2):
        job.save(result_of(run(job, step - 1, step)))
    if INFO.is_main:
        folder = checkpoint_folder(job.run_dir, 2)
        part = next(path for path in (folder / STATE).glob("*optim*") if "rank_1_" in path.name)
        part.write_bytes(b"no longer a state")
        info = read_info(folder)
        files = tuple(measure_file(folder, file.name) for file in info.files)
        write_info(folder, dataclasses.replace(info, files=files))
    dist.barrier()
    again = make("unloadable")
    step = again.restore().step
    later = run(again, step, step + 1)
    events = [row["event"] for row in read_jsonl(job.run_dir / "events.jsonl")] if INFO.is_main else []
    return {"step": step, "events": events, "norms": later.norms, "equal": fingerprint(job) == fingerprint(again)}


def other_frozen_weights_are_refused() -> dict[str, Any]:
    job = make("frozen")
    job.save(result_of(run(job, 0, 1)))
    other = make("frozen")
    other.state.identity = dataclasses.replace(other.state.identity, frozen_hash="0" * 16)
    try:
        other.restore()
    except PokeVLAError as error:
        return {"error": type(error).__name__, "message": str(error)}
    return {"error": None}


def a_full_disk_lets_the_run_go_on() -> dict[str, Any]:
    job = make("full", "checkpoint.max_failed_saves=2")
    events = EventLog(job.run_dir / "events.jsonl") if INFO.is_main else None
    writer = MetricWriter(job.run_dir, INFO.rank, sinks=["jsonl"])
    job.saver.writer, job.saver.events = writer, events
    saved = [job.save(result_of(run(job, 0, 1)))]
    with limited_files():
        saved.append(job.save(result_of(run(job, 1, 2))))
    left = sorted(path.name for path in (job.run_dir / "checkpoints").iterdir())
    saved.append(job.save(result_of(run(job, 2, 3))))  # once there is space again, the same job saves
    with limited_files():
        saved.append(job.save(result_of(run(job, 3, 4))))
        result = result_of(run(job, 4, 5))
        try:
            job.save(result)
            outcome: dict[str, Any] = {"error": None}
        except PokeVLAError as error:
            outcome = {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
    writer.close()
    seen = [row["event"] for row in read_jsonl(job.run_dir / "events.jsonl")] if INFO.is_main else []
    complete = [step for step, _ in list_checkpoints(job.run_dir)]
    return {**outcome, "saved": saved, "left": left, "events": seen, "complete": complete}


def the_last_save_must_not_fail() -> dict[str, Any]:
    """The save of the last step, whose state is the result of the run."""
    job = make("last", "steps=1")
    result = result_of(run(job, 0, 1))
    with limited_files():
        try:
            job.save(result)
        except PokeVLAError as error:
            return {"error": type(error).__name__}
    return {"error": None}


@contextlib.contextmanager
def limited_files() -> Iterator[None]:
    """Within the block, writes of rank 1 fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if INFO.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        dist.barrier()


def validation_changes_nothing() -> dict[str, Any]:
    outcome = {}
    for name in ("with", "without"):
        job = make(f"validation-{name}")
        collector = run(job, 0, 1)
        if name == "with":
            writer = MetricWriter(job.run_dir, INFO.rank, sinks=["jsonl"])
            validation = Validation(
                job.trainer.engine, DEVICE, job.task.validation, 1, writer, job.trainer.meter, job.trainer.guards.pulse
            )
            validation.after_step(collector.results[-1])
            writer.close()
        run(job, 1, 3)
        outcome[name] = fingerprint(job)
    return outcome


def write_results() -> None:
    (OUT / f"rank_{INFO.rank}.json").write_text(json.dumps(RESULTS, indent=1))


def main() -> None:
    only = sys.argv[4].split(",") if len(sys.argv) > 4 else []
    for function in (
        accumulation_is_one_big_batch,
        measuring_norms_changes_nothing,
        applied_rates,
        half_and_damaged_checkpoints,
        a_file_that_one_rank_cannot_load,
        other_frozen_weights_are_refused,
        a_full_disk_lets_the_run_go_on,
        the_last_save_must_not_fail,
        saving_changes_nothing,
        validation_changes_nothing,
    ):
        if not only or function.__name__ in only:
            scenario(function)
    for function in guard_scenarios.SCENARIOS:
        if not only or "guards" in only:
            scenario(function, sys.modules["__main__"])
    for stage, precision in (
        (0, "fp32"),
        (0, "bf16"),
        (1, "fp32"),
        (1, "bf16"),
        (2, "fp32"),
        (2, "bf16"),
        (3, "fp32"),
        (3, "bf16"),
    ):
        for function in (resume_is_exact, export_equals_engine, nan_is_skipped_together):
            key = f"{function.__name__}/{stage}/{precision}"
            if only and f"{stage}/{precision}" not in only:
                continue
            try:
                RESULTS[key] = function(stage, precision)
                write_results()
            except (PokeVLAError, RuntimeError, AssertionError, KeyError, AttributeError) as error:
                RESULTS[key] = {"failed": f"{type(error).__name__}: {error}"}
                raise


if __name__ == "__main__":
    die_with_parent()
    gc.freeze()  # as in a rank: DeepSpeed collects garbage several times while it builds an engine
    torch.set_num_threads(1)
    INFO = read_rank()
    DEVICE = join_ranks(INFO)
    try:
        main()
    finally:
        write_results()
    leave_ranks()
