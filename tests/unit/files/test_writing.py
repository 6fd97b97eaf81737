"""What is written is there whole or not at all: after errors, on a full disk, after kill -9, beside other writers."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pokevla.errors import CheckpointError, DataError, DiskFullError
from pokevla.files.names import temporary_name
from pokevla.files.ownership import refuse_foreign
from pokevla.files.texts import read_json, write_json, write_text
from pokevla.files.writing import atomic_file, atomic_folder, atomic_path

RoomFor = Callable[[int], AbstractContextManager[None]]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_ours(path: Path) -> None:
    refuse_foreign(path, "thing", ["marker", "sub/*"])


def write_folder(path: Path, parts: list[bytes], *, error: bool = False, durable: bool = True) -> None:
    """A folder with its marker first, as bad an order as can be."""
    with atomic_folder(path, replaces=is_ours, durable=durable) as new:
        (new / "marker").write_text("")
        (new / "sub").mkdir()
        for number, part in enumerate(parts):
            (new / "sub" / str(number)).write_bytes(part)
        if error:
            raise KeyboardInterrupt


def folder_parts(path: Path) -> list[bytes]:
    assert (path / "marker").is_file()
    return [(path / "sub" / name).read_bytes() for name in sorted(os.listdir(path / "sub"), key=int)]


@settings(max_examples=60)
@given(
    old=st.none() | st.binary(max_size=5000),
    parts=st.lists(st.binary(max_size=3000), max_size=5),
    limit=st.none() | st.integers(0, 8000),
    fails_after=st.none() | st.integers(0, 5),
    durable=st.booleans(),
)
def test_a_file_is_the_old_one_or_the_new_one(
    room_for: RoomFor, old: bytes | None, parts: list[bytes], limit: int | None, fails_after: int | None, durable: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        if old is not None:
            path.write_bytes(old)
        outcome = "new"
        with room_for(1 << 30 if limit is None else limit):
            try:
                with atomic_file(path, durable=durable) as file:
                    for number, part in enumerate(parts):
                        if number == fails_after:
                            raise KeyboardInterrupt
                        file.write(part)
            except KeyboardInterrupt:
                outcome = "interrupted"
            except DiskFullError:
                outcome = "full"
        size = sum(map(len, parts))
        assert outcome != "new" or limit is None or size <= limit
        assert outcome != "full" or (limit is not None and size > limit)
        expected = b"".join(parts) if outcome == "new" else old
        assert names(Path(folder)) == ([] if expected is None else ["file"])
        assert expected is None or path.read_bytes() == expected


@settings(max_examples=40)
@given(
    old=st.none() | st.lists(st.binary(max_size=100), max_size=3),
    new=st.lists(st.binary(max_size=3000), max_size=5),
    limit=st.none() | st.integers(0, 3000),
    error=st.booleans(),
)
def test_a_folder_is_the_old_one_or_the_new_one(
    room_for: RoomFor, old: list[bytes] | None, new: list[bytes], limit: int | None, error: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        if old is not None:
            write_folder(path, old, durable=False)
        expected = new
        with room_for(1 << 30 if limit is None else limit):
            try:
                write_folder(path, new, error=error, durable=False)
            except (KeyboardInterrupt, DiskFullError):
                expected = old
        assert expected is not old or error or max(map(len, new)) > (limit or 0)
        assert names(Path(folder)) == ([] if expected is None else ["out"])
        assert expected is None or folder_parts(path) == expected


def test_a_full_disk_leaves_the_old_content_and_nothing_else(small_disk: Path) -> None:
    write_text(small_disk / "file", "old")
    write_folder(small_disk / "out", [b"old"])
    before = os.statvfs(small_disk).f_bfree
    for attempt in (lambda: write_text(small_disk / "file", "x" * 100_000),
                    lambda: write_folder(small_disk / "out", [b"x" * 10_000] * 10)):  # fmt: skip
        with pytest.raises(DiskFullError, match=r"No room to write .*small_disk/(file|out) \(No space left"):
            attempt()
    assert names(small_disk) == ["file", "out"]
    assert (small_disk / "file").read_text() == "old"
    assert folder_parts(small_disk / "out") == [b"old"]
    assert os.statvfs(small_disk).f_bfree == before


def kill_at_every_line(work: Callable[[], None]) -> Iterator[int]:
    """Let a child do `work` and kill it (SIGKILL) before the first line of pokevla.files that it gets to, then another
    before the second line, and so on. Yields after each death; ends with a child that survives."""
    for number in itertools.count(1):
        child = os.fork()
        if child == 0:
            sys.settrace(_killing_before(number))
            work()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return
        yield number


def _killing_before(line: int) -> Callable[..., Any]:
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        nonlocal left
        if f"{os.sep}pokevla{os.sep}files{os.sep}" not in frame.f_code.co_filename:
            return None
        left -= event == "line"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def test_wherever_a_writer_is_killed_the_file_is_whole_and_the_next_writer_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen: set[tuple[str, bool]] = set()
    write_text(path, "old")
    for _ in kill_at_every_line(lambda: write_text(path, "new" * 10_000, durable=False)):
        text = path.read_text()
        assert text in ("old", "new" * 10_000)
        seen.add((text[:3], temporary_name(path).exists()))
        write_text(path, "old", durable=False)
        assert names(tmp_path) == ["file"]
    assert seen == {("old", False), ("old", True), ("new", False)}


def test_wherever_a_writer_is_killed_the_folder_is_whole_and_the_next_writer_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "out"
    old, new = [b"old"], [b"new"] * 20
    seen: set[tuple[str, bool]] = set()
    write_folder(path, old, durable=False)
    for _ in kill_at_every_line(lambda: write_folder(path, new, durable=False)):
        state = "none"
        if path.exists():
            state = folder_parts(path)[0].decode()
            assert folder_parts(path) in (old, new)
        seen.add((state, temporary_name(path).exists()))
        with suppress(KeyboardInterrupt):  # a next writer, which fails
            write_folder(path, [], error=True, durable=False)
        assert folder_parts(path) == (new if state == "new" else old)
        assert names(tmp_path) == ["out"]
        write_folder(path, old, durable=False)
    assert seen == {("old", False), ("old", True), ("none", True), ("new", True), ("new", False)}


def test_a_folder_that_was_moved_out_of_the_way_by_a_killed_writer_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write_folder(path, [b"old"])
    temporary_name(path).mkdir()
    path.rename(temporary_name(path) / ".replaced")
    with pytest.raises(KeyboardInterrupt):
        write_folder(path, [b"new"], error=True)
    assert folder_parts(path) == [b"old"]
    assert names(tmp_path) == ["out"]


def test_writers_of_one_file_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write(letter: str) -> None:
        for _ in range(20):
            with atomic_file(path, "w", durable=False) as file:
                for _ in range(10):
                    file.write(letter * 1000)
                    file.flush()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            text = path.read_text()
            assert len(text) == 10_000
            assert len(set(text)) == 1
    assert names(tmp_path) == ["file"]


def test_a_second_writer_of_a_folder_is_turned_away(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as first:
        second = atomic_folder(tmp_path / "out", kind=CheckpointError)
        reason = rf"Another process \(process {os.getpid()} on .*\) is writing .*/out\. Wait"
        with pytest.raises(CheckpointError, match=reason), second:
            pass
        (first / "whole").write_text("")
    assert names(tmp_path / "out") == ["whole"]


def test_what_is_there_already_is_not_replaced_unless_it_is_of_the_same_kind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("ten years of work")
    for proof, reason in ((None, "exists"), (is_ours, "thesis.tex does not belong to the thing")):
        with pytest.raises(DataError, match=reason), atomic_folder(out, replaces=proof):
            pass
    with pytest.raises(DataError, match="exists"), atomic_path(out):
        pass
    with pytest.raises(DataError, match="exists"), atomic_folder(out / "thesis.tex"):
        pass
    assert (out / "thesis.tex").read_text() == "ten years of work"
    assert names(tmp_path) == ["out"]


def test_a_temporary_name_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    temporary, elsewhere = temporary_name(tmp_path / "out"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_text("ten years of work")
    temporary.mkdir()
    (temporary / "thesis.tex").write_text("ten years of work")
    with pytest.raises(DataError, match=r"was not made by pokevla \(it holds thesis.tex\)"):
        write_folder(tmp_path / "out", [b"new"])
    assert names(temporary) == ["thesis.tex"]
    temporary_name(tmp_path / "folder").symlink_to(elsewhere)
    temporary_name(tmp_path / "file").symlink_to(elsewhere / "thesis.tex")
    with pytest.raises(DataError, match="Cannot write"):
        write_folder(tmp_path / "folder", [b"new"])
    with pytest.raises(DataError, match="Cannot write"):
        write_text(tmp_path / "file", "new")
    assert (elsewhere / "thesis.tex").read_text() == "ten years of work"


def test_a_link_is_followed_to_the_folder_that_is_replaced(tmp_path: Path) -> None:
    write_folder(tmp_path / "big_disk", [b"old"])
    (tmp_path / "out").symlink_to("big_disk")
    write_folder(tmp_path / "out", [b"new"])
    assert (tmp_path / "out").is_symlink()
    assert folder_parts(tmp_path / "big_disk") == [b"new"]
    assert names(tmp_path) == ["big_disk", "out"]


def test_a_path_keeps_its_name_and_takes_what_else_the_library_writes_away_with_it(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "videos" / "trial.mp4") as path:
        assert path.name == "trial.mp4"
        path.write_bytes(b"film")
        path.with_name("index.scratch").write_bytes(b"scratch")
    assert names(tmp_path / "videos") == ["trial.mp4"]
    assert (tmp_path / "videos" / "trial.mp4").read_bytes() == b"film"


def test_a_body_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Cannot write"), atomic_path(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_durable_means_that_the_bytes_are_synced_before_the_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        calls.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_text(tmp_path / "file", "text", durable=False)
    assert calls == []
    write_text(tmp_path / "file", "text")
    assert calls == [".tmp-file", "."]
    calls.clear()
    write_folder(tmp_path / "out", [b"part"])
    inner = ".tmp-out/out"
    assert sorted(calls[:-1]) == [inner, f"{inner}/marker", f"{inner}/sub", f"{inner}/sub/0"]
    assert calls[-1] == "."


def test_text_is_utf_8_and_json_of_the_asked_form(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "ä", "a": 1}, sort_keys=True, ensure_ascii=False)
    assert (tmp_path / "a.json").read_bytes() == '{\n  "a": 1,\n  "b": "ä"\n}\n'.encode()
    assert read_json(tmp_path / "a.json") == {"a": 1, "b": "ä"}
    write_json(tmp_path / "a.json", [1, "ä"], indent=None)
    assert (tmp_path / "a.json").read_bytes() == b'[1, "\\u00e4"]\n'
    with atomic_file(tmp_path / "b", "w") as file:
        file.write("ä")
    assert (tmp_path / "b").read_bytes() == "ä".encode()


@pytest.mark.parametrize(("content", "reason"), [(None, "is missing"), (b"{", "not JSON"), (b'"\xff"', "not UTF-8")])
def test_a_json_file_that_cannot_be_read_is_an_error_with_the_callers_remedy(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{path}.* .*{reason}.*Write it again"):
        read_json(path, kind=CheckpointError, remedy="Write it again.")


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", object())
    assert read_json(tmp_path / "a.json") == 1
    assert names(tmp_path) == ["a.json"]
