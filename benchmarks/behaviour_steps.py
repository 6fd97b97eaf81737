"""The steps of `equal_behaviour.py`: a commit's own behaviour, and its behaviour on files of another commit.

Steps use the command line, the commit's benchmark scripts and files with a documented format. None imports a module of
the package. Values are JSON: numbers, strings, series of [step, value], dictionaries of hashes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkouts import Checkout
from safetensors.numpy import load_file

Values = dict[str, Any]
ACCEPTED: Values = {"files": "accepted"}
CACHE_RECIPE = "recipes/demo/posttrain.yaml"
MEASURED = re.compile(r"^time$|_s$|_s/|_gib$|_share$|^tflops|^mfu|gpu")
"""Metrics that depend on the machine, such as times, memory and utilisation."""
ELASTIC = """\
import json, sys
sys.path.insert(0, "benchmarks")
from pathlib import Path
from elastic import compare
from toy_run import write_recipe
work, stages, steps = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
(work / "rows.json").write_text(json.dumps(compare(write_recipe(work, "elastic"), work, stages, steps)))
"""


@dataclass(frozen=True)
class Sizes:
    """How much each step runs."""

    episodes: int
    scenes: int
    steps: int  # of each demo training
    kills: int  # of the kill storm; 8 steps each
    stages: tuple[int, ...]  # ZeRO stages of the elastic run
    steps_per_phase: int  # of the elastic run's four phases


FULL = Sizes(episodes=12, scenes=24, steps=50, kills=7, stages=(1, 2, 3), steps_per_phase=13)
QUICK = Sizes(episodes=4, scenes=8, steps=4, kills=1, stages=(2,), steps_per_phase=2)


Step = Callable[[Checkout, Sizes], Values]


# ------------------------------------------------------------------------------------------------ reading results


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def hash_weights(export: Path) -> str:
    """Hash of names, types, shapes and values of exported weights."""
    total = hashlib.sha256()
    for name, array in sorted(load_file(export / "model.safetensors").items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return total.hexdigest()[:16]


def newest_checkpoint(run_dir: Path) -> Path:
    """Directory of the checkpoint with the highest step."""
    return max((run_dir / "checkpoints").glob("step-*"))


def run_values(run_dir: Path) -> Values:
    """Values of a finished run: every metric as a series, and the hashes of recipe, frozen weights and exported
    weights."""
    series: Values = {}
    for line in read_lines(run_dir / "metrics.jsonl"):
        for name, value in line.items():
            if name != "step" and not MEASURED.search(name):
                series.setdefault(name, []).append([line["step"], value])
    marker = json.loads((newest_checkpoint(run_dir) / "COMPLETE.json").read_text(encoding="utf-8"))
    hashes = {name: marker[name] for name in ("recipe_hash", "frozen_hash")}
    return {**series, **hashes, "exported weights": hash_weights(run_dir / "export")}


def dataset_values(folder: Path) -> Values:
    """Fingerprint of a dataset, and the hash of each shard."""
    fingerprint = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["fingerprint"]
    shards = sorted((folder / "shards").glob("*.tar"))
    return {"fingerprint": fingerprint, "shards": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in shards}}


def copy_unfinished(run_dir: Path, target: Path) -> Path:
    """Copy a run as if it had been killed after its oldest checkpoint: without anything later, and without export."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(run_dir, target)
    shutil.rmtree(target / "export")
    oldest, *later = sorted((target / "checkpoints").glob("step-*"))
    for folder in later:
        shutil.rmtree(folder)
    metrics = target / "metrics.jsonl"
    lines = [line for line in read_lines(metrics) if line["step"] <= int(oldest.name.removeprefix("step-"))]
    metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return target


# ------------------------------------------------------------------------------------- a commit's own behaviour


def make_data(work: Checkout, sizes: Sizes) -> Values:
    """Make a smaller version of the demo's data, with the verbs and options of `recipes/demo/demo.yaml`."""
    shutil.rmtree(work.data, ignore_errors=True)
    scene = ("--suite", "libero_object", "--task", 3, "--init-states", "0:30", "--image-size", 128, "--fast-rendering")
    noise = ("--target-shift", "0:0.08", "--dart-sigma", 0.2, "--random-start-steps", 16, "--image-stride", 4)
    many = ("--workers", 2, "--seed", 0, "--episodes", sizes.episodes, "--val-fraction", 0.25)
    work.pokevla("data", "demos", *scene, *noise, *many, "--out", work.data / "raw")
    work.pokevla(
        "data", "scenes", *scene, "--workers", 2, "--seed", 1, "--count", sizes.scenes, "--out", work.data / "scenes"
    )
    _convert(work, work.data)
    return {}


def _convert(work: Checkout, out: Path) -> None:
    raw, scenes = work.data / "raw", work.data / "scenes"
    weights = ("--weight", "grounding=3", "--weight", "affordance=4")
    work.pokevla("data", "convert", "libero", raw, out / "robot", "--overwrite")
    work.pokevla(
        "data", "convert", "libero-vlm", scenes, raw, out / "vlm", "--per-image", 5, "--frame-stride", 3, *weights,
        "--overwrite",
    )  # fmt: skip


def conversion(work: Checkout, _: Sizes) -> Values:
    """Convert the recordings of BASE again."""
    out = work.fresh("converted")
    _convert(work, out)
    kinds = ("robot", "vlm")
    return {f"{kind} {name}": value for kind in kinds for name, value in dataset_values(out / kind).items()}


def _on(work: Checkout, dataset: str) -> str:
    return f"data.datasets=[{{path: {work.data / dataset}}}]"


def _train(work: Checkout, name: str, dataset: str, sizes: Sizes) -> Values:
    run_dir = work.fresh(name)
    saves = f"checkpoint={{every_steps: {sizes.steps // 2}, keep_last: 2}}"
    overrides = (_on(work, dataset), f"steps={sizes.steps}", saves, "log={every_steps: 1, grad_norms_every_steps: 2}")
    work.pokevla("train", f"recipes/demo/{name}.yaml", *overrides)
    return run_values(run_dir)


def pretraining(work: Checkout, sizes: Sizes) -> Values:
    """Run a short version of the demo's pre-training."""
    return _train(work, "pretrain", "vlm", sizes)


def posttraining(work: Checkout, sizes: Sizes) -> Values:
    """Run the demo's post-training, starting from this commit's pre-training and using this commit's cache."""
    work.fresh("cache")
    work.pokevla("cache", "build", CACHE_RECIPE, _on(work, "robot"))
    return _train(work, "posttrain", "robot", sizes)


def first_samples(work: Checkout, _: Sizes) -> Values:
    """Hash every field of the first samples of each loader."""
    values: Values = {}
    for name, dataset in (("pretrain", "vlm"), ("posttrain", "robot")):
        work.fresh("probe")
        words = ("name=probe", "steps=1", "batch={global: 8, micro: 8}", "resources.cpu_ranks=1")
        words = (*words, "checkpoint.every_steps=1", _on(work, dataset))
        notes = work.probe("train", f"recipes/demo/{name}.yaml", *words, one_rank=True)
        for split in ("training", "validation"):
            values |= {f"{name} {split} {number}": one for number, one in enumerate(notes[split], start=1)}
    if len(values) != 20:
        raise RuntimeError(f"{len(values)} samples instead of 20 reached the models: model_probe.py needs an update.")
    return values


def grounding(work: Checkout, _: Sizes) -> Values:
    """Answers of the PokeVLM in `job`/pretrain, and of one with random weights."""
    out = work.folder / "evaluations"
    words = (f"dataset={work.data / 'vlm'}", f"output={out}", "max_questions=16", "--overwrite")
    work.pokevla("eval", "recipes/demo/grounding.yaml", *words)
    answers = read_lines(out / "grounding" / "answers.jsonl")
    return {
        f"answers {name}": [one["answer"] for one in answers if one["model"] == name] for name in ("before", "after")
    }


def trial(work: Checkout, _: Sizes) -> Values:
    """Actions of the policy in `job`/posttrain over 24 steps of a trial, and how the trial ended."""
    out = work.folder / "evaluations"
    policy = f"policies=[{{name: trained, kind: model, run: {work.job / 'posttrain'}}}]"
    words = ("trials.max_steps=24", "trials.init_states=[30, 31]", "workers=1", "videos=0")
    notes = work.probe(
        "eval", "recipes/demo/evaluation.yaml", policy, *words, f"output={out}", "--overwrite"
    )  # fmt: skip
    record = read_lines(out / "evaluation" / "episodes.jsonl")[0]
    return {"action chunks": notes["actions"], **{name: record[name] for name in ("target_shift", "outcome", "steps")}}


def kill_storm(work: Checkout, sizes: Sizes) -> Values:
    """The toy runs of the kill storm: the uninterrupted one and the killed one."""
    folder = work.fresh("storm")
    folder.mkdir()
    work.check_out()
    name = ["--only", "train ZeRO 2, fp32, background saves"] if (work.tree / "benchmarks/storm").exists() else []
    work.python("benchmarks/kill_storm.py", "--kills", sizes.kills, "--work", folder, *name)  # once it had but one
    runs = {name: run_values(folder / "runs" / name) for name in ("calm", "wild")}
    return {f"{run} {name}": value for run, values in runs.items() for name, value in values.items()}


def elastic(work: Checkout, sizes: Sizes) -> Values:
    """The elastic run on 2, 1, 3 and 2 ranks, and the same run on 2 ranks throughout."""
    folder = work.fresh("elastic")
    folder.mkdir()
    work.python("-c", ELASTIC, folder, json.dumps(sizes.stages), sizes.steps_per_phase)
    rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    return {
        f"ZeRO {stage}, {title} loss": list(row[key].items())
        for stage, row in zip(sizes.stages, rows, strict=True)
        for title, key in (("2 -> 1 -> 3 -> 2 ranks", "curve"), ("2 ranks", "undisturbed"))
    }


def _resume(work: Checkout, name: str, *words: object) -> Values:
    run_dir = copy_unfinished(work.job / name, work.folder / "resumed" / name)
    work.pokevla("resume", run_dir, *words)
    return run_values(run_dir)


def resumed_pretraining(work: Checkout, _: Sizes) -> Values:
    """Resume the pre-training in `job` from its first checkpoint."""
    return _resume(work, "pretrain")


def resumed_posttraining(work: Checkout, _: Sizes) -> Values:
    """Resume the post-training in `job` from its first checkpoint."""
    return _resume(work, "posttrain")


def resumed_on_one_rank(work: Checkout, _: Sizes) -> Values:
    """The uninterrupted toy run in `job`, started on two ranks and resumed on one."""
    return _resume(work, "storm/runs/calm", "--ranks", 1)


def exported_again(work: Checkout, _: Sizes) -> Values:
    """Weights exported from the last checkpoint of the post-training in `job`."""
    out = work.folder / "exported"
    shutil.rmtree(out, ignore_errors=True)
    work.pokevla("ckpt", "export", work.job / "posttrain", out)
    return {"exported weights": hash_weights(out)}


def verified(*words: str) -> Step:
    """A step that runs a verification command. {root} and {job} in `words` are replaced by paths."""

    def verify(work: Checkout, _: Sizes) -> Values:
        work.pokevla(*(word.format(root=work.root, job=work.job) for word in words))
        return ACCEPTED

    return verify


OWN: dict[str, Step] = {
    "conversion": conversion,
    "pre-training": pretraining,
    "post-training": posttraining,
    "first samples": first_samples,
    "grounding": grounding,
    "trial": trial,
    "kill storm": kill_storm,
    "resume on one rank": resumed_on_one_rank,
    "export": exported_again,
    "elastic": elastic,
}
"""The steps in order: each may use the runs of earlier ones."""

CROSS: dict[str, tuple[str | None, Step]] = {
    "robot dataset of BASE": (None, verified("data", "verify", "{root}/data/robot")),
    "VLM dataset of BASE": (None, verified("data", "verify", "{root}/data/vlm")),
    "cache of BASE": (None, verified("cache", "verify", CACHE_RECIPE, "data.datasets=[{{path: {root}/data/robot}}]")),
    "checkpoints of BASE, pre-training": (None, verified("ckpt", "verify", "{job}/pretrain")),
    "checkpoints of BASE, post-training": (None, verified("ckpt", "verify", "{job}/posttrain")),
    "checkpoints of BASE, kill storm": (None, verified("ckpt", "verify", "{job}/storm/runs/calm")),
    "pre-training of BASE, resumed": ("pre-training", resumed_pretraining),
    "post-training of BASE, resumed": ("post-training", resumed_posttraining),
    "kill storm of BASE, resumed on one rank": ("resume on one rank", resumed_on_one_rank),
    "checkpoint of BASE, exported": ("export", exported_again),
    "export of BASE, grounding": ("grounding", grounding),
    "export of BASE, trial": ("trial", trial),
}
"""Steps that NEW runs on the files of BASE, each with the step of BASE whose results it must reproduce. None: NEW only
has to accept the files."""
