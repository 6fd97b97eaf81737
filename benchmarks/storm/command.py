"""Kill a command many times, repeat it until it ends, and compare what it has written with an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from storm.outcome import Outcome

POLL_S = 0.01
TIME_LIMIT_S = 1800.0
"""Maximum duration of one command. After it the benchmark fails, because something hangs."""
ORPHANS_S = 120.0
"""How long worker processes may outlive the process that has started them. A simulator looks once per control step."""
TEMPORARY = ".tmp-"
"""Prefix of unfinished files and folders (pokevla/files/writing.py)."""
Parts = dict[str, str]
"""Name of a part of an output -> hash of its content."""


def no_parts(folder: Path) -> Parts:
    """For a command that starts over when it is repeated."""
    return {}


@dataclass(frozen=True)
class Victim:
    """A command that is killed. All it writes is below the folder that it is given."""

    name: str
    words: Callable[[Path], list[str]]  # folder -> command line
    content: Callable[[Path], Parts]  # folder -> what is compared; empty until the output has its final name
    finished: Callable[[Path], Parts] = no_parts  # folder -> parts that the repeated command must not make again


@dataclass
class Storm:
    """A command that is killed repeatedly, with counts of the outcomes."""

    victim: Victim
    folder: Path  # where it writes
    expected: Parts  # of an undisturbed run
    duration_s: float  # of an undisturbed run
    quiet_s: float  # until an undisturbed run writes its first file
    draw: random.Random
    kills: int = 0
    while_writing: int = 0
    survived: int = 0  # ended before the moment of the kill
    lost: list[str] = field(default_factory=list)
    differing: set[str] = field(default_factory=set)

    def attack(self) -> None:
        """Start the command and kill it at a random moment, or let it end if it is faster."""
        before = self.victim.finished(self.folder)
        process = start(self.victim, self.folder)
        try:
            if self._wait_for_moment(process):
                self.kills += 1
                self.while_writing += has_traces(self.folder)
                strike(process, self.draw.random() < 0.5)
            else:
                self.survived += 1
                self._expect_success(process)
        finally:
            self.lost += [f"{count} processes outlive it" for count in [end_session(process)] if count]
        self._compare(before)
        if self.victim.content(self.folder):
            remove(self.folder)  # complete: the next attack begins a new one

    def finish(self) -> None:
        """Let the command end undisturbed, and compare its result."""
        before = self.victim.finished(self.folder)
        process = start(self.victim, self.folder)
        try:
            process.wait(TIME_LIMIT_S)
            self._expect_success(process)
        finally:
            end_session(process)
        self._compare(before)
        result = self.victim.content(self.folder)
        self.differing |= {name for name in self.expected | result if self.expected.get(name) != result.get(name)}
        self.lost += [f"{path.name} is left behind" for path in self.folder.rglob(f"{TEMPORARY}*")]

    def _compare(self, before: Parts) -> None:
        """After a kill or an end: an output with its final name is whole, and finished parts are still there."""
        after, seen = self.victim.finished(self.folder), self.victim.content(self.folder)
        self.lost += [f"{name} was made again" for name in before if after.get(name, before[name]) != before[name]]
        if not seen:  # a complete output may have taken up its parts
            self.lost += [f"{name} is gone" for name in before if name not in after]
        else:
            self.differing |= {name for name in self.expected | seen if self.expected.get(name) != seen.get(name)}

    def _wait_for_moment(self, process: subprocess.Popen[bytes]) -> bool:
        """Wait for the moment of the kill: every other time it comes after the first file. False if the command ends
        first."""
        delay_s = self.duration_s
        if (self.kills + self.survived) % 2 == 1:
            had_traces = has_traces(self.folder)
            if not wait_until(process, lambda: had_traces or has_traces(self.folder)):
                return False
            delay_s -= self.quiet_s * (not had_traces)
        until = time.monotonic() + self.draw.uniform(0, delay_s)
        return wait_until(process, lambda: time.monotonic() > until)

    def _expect_success(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode != 0:
            raise RuntimeError(f"{self.victim.name} failed by itself; see {log_of(self.folder)}")


def storm_command(victim: Victim, work: Path, kills: int, draw: random.Random) -> Outcome:
    """Run a command undisturbed in `work`/calm, then with `kills` kills in `work`/wild, and compare the two.

    Raises RuntimeError if the command fails without having been killed.
    """
    calm, wild = work / "calm", work / "wild"
    started_at = time.monotonic()
    process = start(victim, calm)
    wait_until(process, lambda: has_traces(calm))
    quiet_s = time.monotonic() - started_at
    if process.wait(TIME_LIMIT_S) != 0:
        raise RuntimeError(f"{victim.name} failed; see {log_of(calm)}")
    duration_s = time.monotonic() - started_at
    storm = Storm(victim, wild, victim.content(calm), duration_s, quiet_s, draw)
    while storm.kills < kills:
        storm.attack()
        print(f"{victim.name}: {storm.kills} of {kills} kills", file=sys.stderr, flush=True)
    storm.finish()
    for text in storm.lost:
        print(f"{victim.name}: {text}", file=sys.stderr, flush=True)
    notes = f"{duration_s:.0f} s undisturbed, {storm.survived} ended before the kill"
    return Outcome(storm.kills, storm.while_writing, len(storm.lost), tuple(sorted(storm.differing)), notes)


# ------------------------------------------------------------------------------------------------ processes


def start(victim: Victim, folder: Path) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own. Its output is appended to a log beside `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with log_of(folder).open("ab") as log:
        return subprocess.Popen(
            victim.words(folder), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def log_of(folder: Path) -> Path:
    """Log of the commands that write to `folder`."""
    return folder.with_suffix(".log")


def wait_until(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> bool:
    """Wait for a condition. Returns False if the process ends first."""
    deadline = time.monotonic() + TIME_LIMIT_S
    while not condition():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"{process.args} has not ended within {TIME_LIMIT_S:.0f} s")
        time.sleep(POLL_S)
    return True


def strike(process: subprocess.Popen[bytes], everything: bool) -> None:
    """Send SIGKILL to the process, or to all processes of its session."""
    if everything:
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def end_session(process: subprocess.Popen[bytes]) -> int:
    """Wait until the other processes of a session have ended; kill those that do not and return their number."""
    deadline = time.monotonic() + ORPHANS_S
    while members := session_members(process.pid):
        if time.monotonic() > deadline:
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return len(members)
        time.sleep(0.05)
    return 0


def session_members(session: int) -> list[int]:
    """Processes of a session that are not zombies."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, owner = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:4]
            if int(owner) == session and state not in "ZX":
                members.append(int(stat.parent.name))
    return members


# ------------------------------------------------------------------------------------------------ files


def has_traces(folder: Path) -> bool:
    """Whether anything has been written to a folder."""
    return any(path.is_file() or path.name.startswith(TEMPORARY) for path in walk(folder))


def walk(folder: Path) -> list[Path]:
    """Everything below a folder, and what is being written beside it. Files may vanish meanwhile."""
    with suppress(OSError):
        return [*folder.parent.glob(f"{TEMPORARY}{folder.name}"), *folder.rglob("*")]
    return []


def remove(folder: Path) -> None:
    """Remove a complete output."""
    subprocess.run(["rm", "-rf", "--", str(folder)], check=True)
