"""Recordings of every kind, from their files to a trained policy and its open-loop error.

    python benchmarks/own_recordings.py --json recordings.json
    python benchmarks/own_recordings.py --only robomimic --work FOLDER
    python benchmarks/own_recordings.py --lerobot-python VENV/bin/python     # an environment with `lerobot[dataset]`

Twenty episodes of a toy arm (`recorded/swinging.py`) are written in each layout, converted by `pokevla data
convert`, trained at `tiny` and judged on eight held-out episodes by `pokevla eval openloop`, all by the commands of
docs/own_robot.md.

- `openloop/KIND`: relative error of the policy (1 is the constant action). Ratio: the nearest neighbour's error over
  it. `above` says whether both baselines are beaten with 95 %.
- `convert/KIND`: images of 48 x 64 pixels that `data convert` makes per CPU second, including the start of Python.

With `--lerobot-python`:

- `export/video`, `export/image`: frames of an export that the `lerobot` package of that environment reads with the
  right numbers, instruction and images; the benchmark fails if one is wrong.
- `convert/lerobot`: images per CPU second of our reader (H.264 of 240 x 320 pixels to arrays). Ratio: ours over
  lerobot's `LeRobotDataset[index]`, in order on the same videos, which also makes floats. The two processes take
  turns; best of several rounds. With a key frame every second image, as LeRobot records; `convert/lerobot_gop12` with
  one every twelfth.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.commands import run_pokevla
from benchmarks.recorded.episodes import Recorded
from benchmarks.recorded.hdf5 import write_aloha, write_robomimic
from benchmarks.recorded.lerobot import write_lerobot_v3, write_lerobot_v21
from benchmarks.recorded.lerobot_comparison import compare_exports, compare_readers
from benchmarks.recorded.rlds import write_rlds, write_rlds_arm
from benchmarks.recorded.swinging import swing
from benchmarks.reporting import report, row

TRAINED, HELD_OUT = 12, 8
SHARED = ("--image-size", "32", "--workers", "0")
VAL = ("--val-fraction", str(HELD_OUT / (TRAINED + HELD_OUT)))
ARM = (
    "--state", "joints=observation.state[0:7]@rad", "--state", "gripper=observation.state[7:8]",
    "--action", "joints=action[0:7]@rad", "--action", "gripper=action[7:8]", "--gripper", "gripper.pos=1,0",
)  # fmt: skip
RLDS_ARM = (
    "--state", "joints=observation/state[0:7]@rad", "--state", "gripper=observation/state[7:8]",
    "--action", "joints=action[0:7]@rad", "--action", "gripper=action[7:8]", "--gripper", "7=1,0",
    "--control-mode", "absolute_joint", "--rate", "30",
)  # fmt: skip
RECIPE = """\
kind: posttrain
name: policy
output: {work}/runs
data:
  datasets: [{{path: {dataset}}}]
  chunk_length: 4
  augment: {{crop_area: 1.0, brightness: 0, contrast: 0, saturation: 0, hue: 0}}
model: {{preset: tiny}}
trainable: {{vision: frozen, projector: full, language_model: frozen}}
loss: {{segmentation: {{weight: 0}}, geometry: 0}}
optim: {{lr: 1.0e-2}}
batch: {{global: 16, micro: 16}}
steps: {steps}
precision: fp32
log: {{every_steps: 50, grad_norms_every_steps: 0}}
resources: {{cpu_ranks: 1, threads_per_rank: 1}}
"""


@dataclass(frozen=True)
class Kind:
    """A layout of recordings, and the options that its conversion needs."""

    converter: str
    write: Callable[[Path, list[Recorded]], Path]
    options: tuple[str, ...]
    steps: bool = False
    """Whether its commands are changes."""


def _aloha(root: Path, episodes: list[Recorded]) -> Path:
    for episode in episodes:
        write_aloha(root / f"episode_{episode.number:03d}.hdf5", episode)
    return root


KINDS = {
    "lerobot_v21": Kind("lerobot", write_lerobot_v21, (*ARM, *VAL)),
    "lerobot_v3": Kind("lerobot", lambda root, all_: write_lerobot_v3(root, all_, per_file=5), (*ARM, *VAL)),
    "rlds_libero": Kind("rlds", lambda root, all_: write_rlds(root, all_, 5), VAL, steps=True),
    "rlds_arm": Kind("rlds", lambda root, all_: write_rlds_arm(root, all_, 5), (*RLDS_ARM, *VAL)),
    "aloha": Kind("hdf5", _aloha, ("--map", "aloha", "--task", "Swing", *VAL)),
    "robomimic": Kind(
        "hdf5", lambda root, all_: write_robomimic(root / "image.hdf5", all_, HELD_OUT),
        ("--map", "robomimic", "--task", "Swing"), steps=True,
    ),
}  # fmt: skip


def policy_of(name: str, work: Path, steps: int = 300) -> dict[str, Any]:
    """Write, convert, train and judge one kind in the folder `work`; returns the summary of the open-loop evaluation,
    and under `images_per_cpu_s` the pace of the conversion.

    Raises:
        RuntimeError: a command failed.
    """
    kind = KINDS[name]
    work.mkdir(parents=True, exist_ok=True)
    episodes = [swing(number, steps=kind.steps) for number in range(TRAINED + HELD_OUT)]
    source, dataset = kind.write(work / "recordings", episodes), work / "dataset"
    command = ["data", "convert", kind.converter, str(source), str(dataset), *SHARED, *kind.options]
    begun = _children_cpu_s()
    run_pokevla(command)
    seconds = _children_cpu_s() - begun
    info = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    views = len(info["embodiment"]["views"]) if "embodiment" in info else 2
    recipe = work / "policy.yaml"
    recipe.write_text(RECIPE.format(work=work, dataset=dataset, steps=steps), encoding="utf-8")
    run_pokevla(["train", str(recipe)])
    judge = ["eval", "openloop", str(work / "runs/policy"), str(dataset), "--out", str(work / "judged"), "--plots", "1"]
    run_pokevla([*judge, "--frames", "160", "--batch-size", "32"])
    summary = json.loads((work / "judged/summary.json").read_text(encoding="utf-8"))
    return {**summary, "images_per_cpu_s": views * info["num_samples"] / seconds}


def _children_cpu_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def rows_of(name: str, summary: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """The rows of one kind."""
    found = summary["predictors"]
    policy, nearest = (found[each]["relative_error"] for each in ("policy", "nearest neighbour"))
    return [
        row(f"openloop/{name}", policy, "relative", "nearest neighbour", nearest / policy,
            above=summary["beats_baselines"], gains=summary["gains"], frames=summary["frames"], cpu_s=seconds),
        row(f"convert/{name}", summary["images_per_cpu_s"], "images/CPU s"),
    ]  # fmt: skip


def main() -> int:
    """Run the kinds that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=KINDS, help="kind of recordings; may be repeated")
    parser.add_argument("--none", action="store_true", help="no kind: only what --lerobot-python measures")
    parser.add_argument("--steps", type=int, default=300, help="steps of training")
    parser.add_argument("--work", type=Path, help="folder to keep; default: a temporary one")
    parser.add_argument("--lerobot-python", type=Path, help="Python of an environment with lerobot[dataset]")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        for name in [] if options.none else options.only or KINDS:
            begun = time.process_time() + _children_cpu_s()
            summary = policy_of(name, (work / name).resolve(), options.steps)
            rows += rows_of(name, summary, time.process_time() + _children_cpu_s() - begun)
            print(f"{name}: {'above' if summary['beats_baselines'] else 'NOT above'} both baselines", flush=True)
        if options.lerobot_python is not None:
            rows += compare_exports(options.lerobot_python, (work / "export").resolve())
            rows += compare_readers(options.lerobot_python, (work / "readers").resolve())
    report(rows, options.json)
    return 0 if all(each.get("above", True) for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
