"""A command that is killed again and again: what `benchmarks/storm/command.py` notices."""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
PREPARE = "import sys, time\nfrom pathlib import Path\nout = Path(sys.argv[1])\nout.mkdir(exist_ok=True)\n"
ATOMIC = (
    PREPARE
    + """\
new = out / ".tmp-result"
with new.open("w") as file:
    for number in range(20):
        file.write(f"{number}\\n")
        file.flush()
        time.sleep(0.01)
new.replace(out / "result")
"""
)
HALF_WRITTEN = ATOMIC.replace('".tmp-result"', '"result"')
RESUMING = (
    PREPARE
    + """\
for number in range(10):
    part, new = out / f"part-{number}", out / f".tmp-part-{number}"
    if not part.exists():
        new.write_text(str(number))
        time.sleep(0.02)
        new.replace(part)
(out / "result").write_text("".join(path.read_text() for path in sorted(out.glob("part-*"))))
"""
)
FORGETFUL = RESUMING.replace("if not part.exists():", "if True:")
LITTERING = ATOMIC.replace('".tmp-result"', 'f".tmp-{time.time_ns()}"')
LEAVING_A_WORKER = "import subprocess\nsubprocess.Popen(['sleep', '60'])\n" + ATOMIC


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("storm.command")
    monkeypatch.setattr(module, "ORPHANS_S", 0.3)
    return module


def storm(script: ModuleType, work: Path, program: str, kills: int = 6):
    victim = script.Victim(
        "victim",
        lambda out: [sys.executable, "-S", "-c", program, str(out)],
        lambda out: {"result": (out / "result").read_text()} if (out / "result").exists() else {},
        lambda out: {path.name: str(path.stat().st_ino) for path in out.glob("part-*")},
    )
    return script.storm_command(victim, work, kills, random.Random(0))


def test_command_that_writes_complete_or_absent_passes(script: ModuleType, tmp_path: Path) -> None:
    outcome = storm(script, tmp_path, ATOMIC)
    assert (outcome.kills, outcome.is_good) == (6, True)
    assert outcome.while_writing >= 3, "every other kill waits for the first file"


def test_command_that_goes_on_where_it_was_killed_passes(script: ModuleType, tmp_path: Path) -> None:
    assert storm(script, tmp_path, RESUMING).is_good


def test_half_written_output_is_a_difference(script: ModuleType, tmp_path: Path) -> None:
    assert storm(script, tmp_path, HALF_WRITTEN).differing == ("result",)


def test_finished_part_that_is_made_again_is_lost(script: ModuleType, tmp_path: Path) -> None:
    outcome = storm(script, tmp_path, FORGETFUL)
    assert outcome.lost > 0
    assert outcome.differing == ()


def test_temporary_file_that_nobody_removes_is_noticed(script: ModuleType, tmp_path: Path) -> None:
    assert storm(script, tmp_path, LITTERING, kills=2).lost > 0


def test_process_that_outlives_its_parent_is_noticed(script: ModuleType, tmp_path: Path) -> None:
    outcome = storm(script, tmp_path, LEAVING_A_WORKER, kills=2)
    assert outcome.lost > 0


def test_row_of_a_good_and_a_bad_outcome(script: ModuleType) -> None:
    outcomes = importlib.import_module("storm.outcome")
    good = outcomes.Outcome(20, 11, 0, (), "3 s undisturbed")
    bad = outcomes.Outcome(20, 11, 2, ("robot/dataset.json",))
    assert good.to_row("eval")["reference"] == "11 while writing, 0 lost, identical (3 s undisturbed)"
    assert bad.to_row("eval")["reference"] == "11 while writing, 2 lost, DIFFERENT: robot/dataset.json"
    assert (good.is_good, bad.is_good) == (True, False)
