from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pokevla.cli.main import run
from pokevla.data.inspection import verify_dataset
from pokevla.data.sources.libero import LiberoSettings, convert_libero


def test_convert_show_stats_verify_from_the_command_line(
    tmp_path: Path, libero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out, sheet = str(tmp_path / "out"), tmp_path / "sheet.png"
    assert run(["data", "convert", "libero", str(libero_file()), out, "--shard-samples", "16"]) == 0
    assert "3 episodes, 60 samples, 4 shards" in capsys.readouterr().out
    assert run(["data", "show", out, "2", "--image", str(sheet), "--count", "2"]) == 0
    assert "instruction: pick up the milk and place it in the basket" in capsys.readouterr().out
    assert sheet.stat().st_size > 0
    assert run(["data", "stats", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["splits"] == {"train": 40, "val": 20}
    assert run(["data", "verify", out]) == 0
    assert "all 60 samples are intact" in capsys.readouterr().out
    assert run(["data", "index", out]) == 0
    assert "mapped tables are there" in capsys.readouterr().out
    (tmp_path / "out" / "samples.arrow").unlink()
    assert run(["data", "index", out]) == 0
    assert "mapped tables are written" in capsys.readouterr().out


def test_a_contact_sheet_is_there_whole_or_not_at_all(
    tmp_path: Path,
    robot_dataset: Callable[..., Path],
    room_for: Callable[[int], AbstractContextManager[None]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "sheets"
    command = ["data", "show", str(robot_dataset()), "--image", str(folder / "sheet.png")]
    with room_for(2_000):
        assert run(command) == 3
    assert capsys.readouterr().err.startswith(f"error: No room to write {folder / 'sheet.png'}")
    assert list(folder.iterdir()) == []
    assert run(command) == 0
    assert [path.name for path in folder.iterdir()] == ["sheet.png"]


def test_questions_from_scenes_and_demonstrations(
    tmp_path: Path,
    libero_file: Callable[..., Path],
    scenes_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / "vlm")
    sources = [str(scenes_file()), str(libero_file(side=64))]
    assert run(["data", "convert", "libero-vlm", *sources, out, "--per-image", "2", "--weight", "grounding=3"]) == 0
    assert run(["data", "stats", out, "--json"]) == 0
    text = capsys.readouterr().out
    counts = json.loads(text[text.index("{") :])["category"]
    assert counts["grounding"] > 2 * counts["general"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "{tmp}/none"], 3, "is not a dataset"),
        (["verify", "{tmp}/none"], 3, "is not a dataset"),
        (["convert", "libero", "{tmp}/none", "{tmp}/out"], 3, "no such file"),
        (["convert", "libero-vlm", "{tmp}/none"], 2, "at least one source and OUT"),
        (["convert", "libero-vlm", "{tmp}/none", "{tmp}/out", "--weight", "wit=1"], 2, "does not name a category"),
        (["convert", "libero-vlm", "{tmp}/none", "{tmp}/out", "--weight", "general=x"], 2, "is not a number"),
    ],
)
def test_bad_input_is_one_line_and_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert run(["data", *(a.format(tmp=tmp_path) for a in arguments)]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["libero", "libero-vlm"])
@pytest.mark.parametrize(
    ("source", "out"),
    [("data/raw", "data/raw"), ("data/raw", "data"), ("data/raw", "data/raw/out"), ("link", "data/raw")],
)
def test_a_source_is_never_overwritten(
    tmp_path: Path,
    libero_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    kind: str,
    source: str,
    out: str,
) -> None:
    file = libero_file(folder="data/raw", demos=1)
    (tmp_path / "link").symlink_to("data/raw")
    before = file.read_bytes()
    assert run(["data", "convert", kind, str(tmp_path / source), str(tmp_path / out), "--overwrite"]) == 2
    assert "source" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert not (tmp_path / "data" / "raw" / "out").exists()


def test_a_second_conversion_is_refused_at_once_and_the_first_ends_well(
    tmp_path: Path, libero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = libero_file(demos=1), tmp_path / "out"
    codes = []
    settings = LiberoSettings(source, out)
    convert_libero(
        settings, lambda done, total: codes.append(run(["data", "convert", "libero", str(source), str(out)]))
    )
    assert codes == [3]
    assert f"Another process (process {os.getpid()} on " in capsys.readouterr().err
    assert verify_dataset(out) > 0


def test_an_image_or_report_of_the_user_is_not_replaced(
    tmp_path: Path, libero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out, holiday = tmp_path / "out", tmp_path / "holiday.png"
    assert run(["data", "convert", "libero", str(libero_file(demos=1)), str(out)]) == 0
    holiday.write_bytes(b"the only photo")
    assert run(["data", "show", str(out), "--image", str(holiday)]) == 3
    assert run(["report", str(out), "--out", str(holiday)]) == 3
    assert holiday.read_bytes() == b"the only photo"
    assert capsys.readouterr().err.count("it is not replaced") == 2
    for _ in range(2):  # our own sheet is
        assert run(["data", "show", str(out), "--image", str(tmp_path / "sheet.png")]) == 0


def test_a_replay_needs_a_known_task_and_another_folder(
    tmp_path: Path, libero_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = libero_file("open_my_door", ours=False)
    for verb in ("regenerate", "masks"):
        assert run(["data", verb, str(unknown), str(tmp_path / "out")]) == 3
        assert f"{unknown} is not named after a task of the four LIBERO suites" in capsys.readouterr().err
        assert run(["data", verb, str(unknown), str(unknown.parent)]) == 2
        assert f"The output {unknown.parent} contains the source {unknown}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
