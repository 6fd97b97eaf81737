"""One check of everything that needs a GPU, in at most 8 minutes, with one JSON file as its result.

    scripts/gpu_check.sh --wheels FOLDER [--json PATH]      on a machine with a GPU
    python benchmarks/gpu_check.py --device cpu --quick     here: the same parts, smaller, in two minutes

Parts: the machine; end-to-end trainings of tiny and mini in bf16 with DeepSpeed (NCCL on a GPU), whose losses are
compared with fp32 on the CPU; steps of the full-size model with and without compiled blocks, with their MFU and their
peak memory beside the plan's; attention kernels; one chunk of a policy; copies beside compute. Each part is a process
with a time limit: one that hangs or fails costs the others nothing. The exit code is 0 if all parts are good, else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIME_LIMIT_S = 480.0


@dataclass(frozen=True)
class Part:
    """One part of the check: a function of a module of `gpu_parts`, and its limit."""

    module: str
    limit_s: float
    gpu_only: bool = False


# In the order of what matters most if time runs out. The limits are those of a GPU; their sum is more than the whole
# check may take, which ends the last ones earlier.
PARTS: dict[str, Part] = {
    "machine": Part("parts", 60),
    "train_tiny": Part("parts", 90),
    "full_size": Part("parts", 150),
    "attention": Part("kernels", 40),
    "acting": Part("kernels", 90),
    "copies": Part("kernels", 40),
    "train_mini": Part("parts", 120),
    "full_size_compiled": Part("parts", 200, gpu_only=True),  # on a CPU it gains nothing and needs a compiler
}
CPU_FACTOR = 10.0
"""A busy CPU is slower: the limits are multiplied by this."""


def main() -> int:
    """Run all parts, or one of them in this process (`--part`, used by the former)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--only", help="comma-separated names of parts")
    parser.add_argument("--json", type=Path, default=Path("gpu_check.json"), help="where the result goes")
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT_S, help="seconds for all parts together")
    parser.add_argument("--work", type=Path, help="working directory; it is kept, with the logs of the trainings")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        return _run_part(arguments.part, arguments)
    names = [name.strip() for name in arguments.only.split(",")] if arguments.only else list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {unknown[0]}; parts: {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        result = check(names, work, arguments)
    write(arguments.json, result)
    print(f"written: {arguments.json}")
    return 0 if result["passed"] else 1


def check(names: Sequence[str], work: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the parts one after another; the result of each, whatever happened to it."""
    factor = CPU_FACTOR if arguments.device == "cpu" else 1.0
    end = time.monotonic() + arguments.time_limit * factor
    result: dict[str, Any] = {"device": arguments.device, "quick": arguments.quick, "commit": commit(), "parts": {}}
    for name in names:
        part = PARTS[name]
        left_s = min(part.limit_s * factor, end - time.monotonic())
        if part.gpu_only and arguments.device == "cpu":
            outcome: dict[str, Any] = {"status": "left out", "reason": "needs a GPU"}
        elif left_s <= 0:
            outcome = {"status": "left out", "reason": "no time left"}
        else:
            outcome = run_limited(part_command(name, work, arguments), work / f"{name}.json", left_s)
        result["parts"][name] = outcome
        print(line_of(name, outcome), flush=True)
        write(arguments.json, {**result, "passed": False})  # what is known, should this process be killed
    bad = [name for name, outcome in result["parts"].items() if not is_good(outcome)]
    return {**result, "passed": not bad, "failed": bad}


def is_good(outcome: dict[str, Any]) -> bool:
    """Whether a part has passed, or did not apply to this device."""
    return outcome["status"] == "passed" or outcome.get("reason") == "needs a GPU"


def part_command(name: str, work: Path, arguments: argparse.Namespace) -> list[str]:
    """The command that runs one part in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--part", name, "--work", str(work)]
    return [*command, "--device", arguments.device, *(["--quick"] if arguments.quick else [])]


def run_limited(command: Sequence[str], answer: Path, limit_s: float) -> dict[str, Any]:
    """Run a command that writes its outcome to `answer`; after `limit_s` it is killed with all its children."""
    started = time.monotonic()
    log = answer.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            process.wait(limit_s)
            outcome: dict[str, Any] = {"status": "failed", "reason": _tail(log)}
            if answer.is_file():
                outcome = json.loads(answer.read_text(encoding="utf-8"))
        except subprocess.TimeoutExpired:
            outcome = {"status": "too slow", "reason": f"killed after {limit_s:.0f} s; {_tail(log)}"}
        finally:
            kill_tree(process)
    return {**outcome, "seconds": round(time.monotonic() - started, 1)}


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its descendants. A training is a session of its own, so killing the group is not enough."""
    import psutil

    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def line_of(name: str, outcome: dict[str, Any]) -> str:
    """One line for the terminal."""
    figures = outcome.get("figures", {})
    shown = "  ".join(f"{key} {value:.4g}" for key, value in figures.items() if isinstance(value, float))
    reason = outcome.get("reason", "")
    return f"{name:<20}{outcome['status']:<10}{outcome.get('seconds', 0):>6.1f} s  {reason or shown}"


def commit() -> str:
    """Commit of this checkout; empty without git."""
    folder = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, encoding="utf-8", check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _run_part(name: str, arguments: argparse.Namespace) -> int:
    from importlib import import_module

    from gpu_parts.parts import Missed, Setting

    work: Callable[[Setting], dict[str, Any]] = getattr(import_module(f"gpu_parts.{PARTS[name].module}"), name)
    outcome: dict[str, Any] = {"status": "passed"}
    try:
        outcome["figures"] = work(Setting(arguments.work, arguments.device, arguments.quick))
    except Missed as missed:
        outcome = {"status": "failed", "reason": str(missed), "figures": missed.figures}
    except Exception as error:  # noqa: BLE001  whatever it is, the other parts go on, and the JSON says it
        words = str(error).strip().splitlines() or [""]
        outcome = {"status": "failed", "reason": f"{type(error).__name__}: {words[0]}"}
    write(arguments.work / f"{name}.json", outcome)
    return 0 if outcome["status"] == "passed" else 1


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"last line: {lines[-1][:300]}" if lines else "no output"


if __name__ == "__main__":
    sys.exit(main())
