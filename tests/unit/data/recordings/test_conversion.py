from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.recorded.episodes import picture, shown
from pokevla.data.dataset import Dataset, open_dataset
from pokevla.data.reader import ShardReader
from pokevla.data.recordings.conversion import RecordingSettings, convert_recordings, key_name, prepare_slice
from pokevla.data.recordings.episode import Episode, ReadEpisode
from pokevla.data.recordings.faults import Fault
from pokevla.data.recordings.functions import FunctionSource
from pokevla.data.sources.images import encode_jpeg
from pokevla.embodiment.description import Embodiment, FieldSpec, Gripper
from pokevla.errors import DataError, DiskFullError, UsageError
from tests.unit.data.recordings.conftest import lerobot_source

ROBOT = Embodiment(
    name="toy",
    version=1,
    views=("base",),
    proprio=(FieldSpec("joints", 2, "rad"),),
    action=(FieldSpec("joints", 2, "rad"), FieldSpec("gripper", 1, "1")),
    grippers=(Gripper(2, 1.0, 0.0),),
    action_mask=(True, True, False),
    control_mode="absolute_joint",
    control_rate_hz=10.0,
)


@dataclass(frozen=True)
class ToySource:
    """Six episodes of ten frames. What an episode does when it is read is in `acts`."""

    acts: dict[int, str] = field(default_factory=dict)
    log: Path | None = None
    name: str = "toy set"
    num_episodes: int = 6
    embodiment: Embodiment = ROBOT

    def episode_name(self, number: int) -> str:
        return f"episode {number}"

    def identity(self) -> dict[str, Any]:
        return {"toy": 1}

    def episode_identity(self, number: int) -> Any:
        return self.acts.get(number)

    def provenance(self) -> list[dict[str, Any]]:
        return [{"file": "toy"}]

    @contextmanager
    def opened(self) -> Iterator[ReadEpisode]:
        yield self._read

    def _read(self, number: int) -> Episode:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{number}\n")
        act = self.acts.get(number, "")
        if act == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if act == "hang":
            time.sleep(600)
        if act == "damaged":
            raise DataError("toy.bin is damaged.", "Record it again.")
        rng = np.random.default_rng(number)
        proprio = np.cumsum(rng.normal(0, 0.05, (10, 2)), axis=0)
        actions = np.concatenate([proprio, np.arange(10)[:, None] < 5], axis=1)
        if act == "nan":
            actions[3, 1] = np.nan
        size = 96 if act == "large" else 48
        frames: Iterator[Any] = (self._frame(act, number, t, size) for t in range(6 if act == "short" else 10))
        instruction = "" if act == "no task" else "Push"
        return Episode(instruction, actions, proprio, {"base": frames}, split="val" if act == "val" else None)

    def _frame(self, act: str, number: int, t: int, size: int) -> np.ndarray | bytes:
        t = 4 if act == "repeats" and t in (5, 6) else t
        image = picture(0, number, t, size if not (act == "grows" and t > 4) else 96, 64)
        if act == "jpeg":
            return encode_jpeg(picture(0, number, t, 64, 64), 80)
        if act == "bad jpeg":
            return encode_jpeg(image, 80)[:200]
        return image


def settings(out: Path, **options: Any) -> RecordingSettings:
    return RecordingSettings(out, **{"image_size": 64, "shard_samples": 16, **options})


def run(out: Path, acts: dict[int, str] | None = None, log: Path | None = None, **options: Any) -> Dataset:
    return open_dataset(convert_recordings(ToySource(acts or {}, log), settings(out, **options)))


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_bytes_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    acts = {1: "damaged", 4: "large"}
    one, three = (run(tmp_path / str(n), acts, on_fault="skip", workers=n) for n in (0, 3))
    assert files(one.root) == files(three.root)


@pytest.mark.parametrize(
    ("act", "code", "message"),
    [
        ("damaged", "unreadable", "episode 2: toy.bin is damaged."),
        ("nan", "bad_number", "episode 2: actions, row 3: column 1 is nan, not finite."),
        ("short", "short_video", "episode 2: base ends after 6 of 10 images."),
        ("no task", "missing_task", "episode 2 has no instruction."),
        ("grows", "resolution", "episode 2: base has images of (48, 64) and, at frame 5, (96, 64) pixels."),
        ("bad jpeg", "unreadable", "episode 2: base, frame 0: an image cannot be decoded"),
    ],
)
def test_an_unusable_episode_stops_or_is_left_out_and_counted(
    tmp_path: Path, act: str, code: str, message: str
) -> None:
    with pytest.raises(Fault) as caught:
        run(tmp_path / "out", {2: act})
    assert caught.value.message.startswith(message)
    assert caught.value.code == code
    assert "--on-fault skip" in str(caught.value)
    assert ("Give one with --task. Or pass" in str(caught.value)) == (act == "no task")
    assert not (tmp_path / "out").exists()
    dataset = run(tmp_path / "out", {2: act}, on_fault="skip")
    assert dataset.info["num_episodes"] == 5
    assert dataset.info["checks"] == {code: {"episodes": 1, "count": 1}}
    report = json.loads((dataset.root / "checks.json").read_text())
    assert report["left_out"] == 1
    assert report["found"][0]["episode"] == "episode 2"
    assert report["found"][0]["findings"][-1]["code"] == code
    keys = dataset.samples["key"].to_pylist()
    assert (keys[0], keys[-1]) == ("toy_set-t00-e0000-f0000", "toy_set-t00-e0004-f0009")


def test_a_crash_or_hang_of_a_decoder_costs_one_episode(tmp_path: Path) -> None:
    acts = {1: "crash", 3: "hang"}
    dataset = run(tmp_path / "out", acts, workers=1, on_fault="skip", episode_timeout_s=4.0)
    assert dataset.info["num_episodes"] == 4
    reasons = dataset.info["skipped"]
    assert "the process that read it failed: signal 11" in reasons["episode 1"]
    assert "it did not answer in time" in reasons["episode 3"]


def test_too_many_unusable_episodes_end_the_conversion(tmp_path: Path) -> None:
    acts = {1: "damaged", 2: "damaged", 4: "nan"}
    with pytest.raises(DataError, match=r"2 of 6 episodes cannot be used, more than the allowed share of 0.2"):
        run(tmp_path / "out", acts, on_fault="skip", max_skipped=0.2)
    assert not (tmp_path / "out").exists()


def test_finished_episodes_are_not_read_again(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    with pytest.raises(Fault):
        run(out, {4: "damaged"}, log)
    assert log.read_text().split() == ["0", "1", "2", "3", "4"]
    assert (tmp_path / ".unfinished-out" / "000003").is_dir()
    log.unlink()
    dataset = run(out, {1: "changed"}, log)  # episode 4 is repaired, and the files of episode 1 have changed
    assert log.read_text().split() == ["1", "4", "5"]
    assert not (tmp_path / ".unfinished-out").exists()
    log.unlink()
    undisturbed = run(tmp_path / "other", {1: "changed"}, log)
    assert files(dataset.root) == files(undisturbed.root)


def test_slices_of_a_job_array_are_put_together(tmp_path: Path) -> None:
    log, out, acts = tmp_path / "log", tmp_path / "out", {4: "damaged"}
    counts = [prepare_slice(ToySource(acts, log), settings(out, on_fault="skip"), n, 4) for n in (2, 0, 3, 1)]
    assert counts == [1, 2, 1, 2]
    assert log.read_text().split() == ["2", "0", "4", "3", "1", "5"]
    log.unlink()
    dataset = run(out, acts, log, on_fault="skip")
    assert log.read_text().split() == ["4"]  # what could not be used is tried again
    assert files(dataset.root) == files(run(tmp_path / "other", acts, on_fault="skip").root)
    with pytest.raises(UsageError, match=r"--slice 4/4: there is none. Slices are 0/4 to 3/4"):
        prepare_slice(ToySource(), settings(tmp_path / "third"), 4, 4)


def test_a_slice_with_other_options_is_refused(tmp_path: Path) -> None:
    prepare_slice(ToySource(), settings(tmp_path / "out"), 0, 2)
    with pytest.raises(DataError, match="holds parts converted with other options"):
        prepare_slice(ToySource(), settings(tmp_path / "out", image_size=32), 1, 2)


def test_finished_episodes_of_other_settings_are_not_used(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    with pytest.raises(Fault):
        run(out, {1: "damaged"}, log)
    log.unlink()
    run(out, {}, log, image_size=32)
    assert log.read_text().split() == ["0", "1", "2", "3", "4", "5"]


def test_a_folder_with_foreign_files_is_not_removed(tmp_path: Path) -> None:
    mine = tmp_path / ".unfinished-out" / "thesis.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(DataError, match=r"thesis.txt does not belong to the unfinished conversion"):
        run(tmp_path / "out")
    assert mine.read_text() == "mine"


KILLED = """
import sys
from pathlib import Path
from pokevla.data.recordings.conversion import RecordingSettings, convert_recordings
from tests.unit.data.recordings.conftest import lerobot_source

if __name__ == "__main__":
    settings = RecordingSettings(Path(sys.argv[2]), image_size=64, shard_samples=64, workers=2)
    convert_recordings(lerobot_source(Path(sys.argv[1])), settings, lambda done, total: print(done, flush=True))
"""


def test_a_conversion_that_was_killed_ends_with_the_same_bytes(
    tmp_path: Path, lerobot_roots: dict[str, Path], convert: Callable[..., Dataset]
) -> None:
    out, script = tmp_path / "killed", tmp_path / "killed.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(lerobot_roots["v3.0"]), str(out)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        process.kill()
    assert not out.exists()
    left = {path.name for path in tmp_path.glob(".unfinished-killed/0*")}
    assert "000000" in left
    convert_recordings(lerobot_source(lerobot_roots["v3.0"]), RecordingSettings(out, image_size=64, shard_samples=64))
    assert files(out) == files(convert(lerobot_roots["v3.0"]).root)


def test_a_jpeg_of_the_right_size_is_kept_as_it_is(tmp_path: Path) -> None:
    dataset = run(tmp_path / "out", {0: "jpeg"})
    reader = ShardReader(dataset)
    assert reader.read(3)["base.jpg"] == encode_jpeg(picture(0, 0, 3, 64, 64), 80)
    smaller = run(tmp_path / "smaller", {0: "jpeg"}, image_size=32)
    assert ShardReader(smaller).read(3)["base.jpg"] != reader.read(3)["base.jpg"]


@pytest.mark.parametrize("aspect", ["stretch", "pad", "crop"])
def test_images_become_square_as_asked(tmp_path: Path, aspect: str) -> None:
    import io

    from PIL import Image

    dataset = run(tmp_path / "out", aspect=aspect, image_size=48)
    image = np.asarray(Image.open(io.BytesIO(ShardReader(dataset).read(1)["base.jpg"])))
    assert image.shape == (48, 48, 3)
    assert (image[:4].max() < 12) == (aspect == "pad")  # black bars; the darkest block is 20
    if aspect == "stretch":
        assert shown(image) == (0, 0, 1)
    assert dataset.info["recorded"] == {"image_size": [48]}
    assert dataset.info["made_by"]["settings"]["aspect"] == aspect


def test_splits_are_the_source_s_or_the_last_episodes(tmp_path: Path) -> None:
    dataset = run(tmp_path / "out", {0: "val", 2: "damaged"}, val_fraction=0.3, on_fault="skip")
    assert dataset.episodes is not None
    assert dataset.episodes["split"].to_pylist() == ["val", "train", "train", "val", "val"]
    assert dataset.statistics is not None
    assert dataset.statistics.num_episodes == 2


def test_missing_instructions_can_be_given(tmp_path: Path) -> None:
    dataset = run(tmp_path / "out", {2: "no task"}, instruction="Do it")
    assert dataset.episodes is not None
    assert dataset.episodes["instruction"].to_pylist() == ["Push", "Push", "Do it", "Push", "Push", "Push"]
    assert dataset.episodes["task_index"].to_pylist() == [0, 0, 1, 0, 0, 0]


def test_images_of_another_size_are_reported(tmp_path: Path) -> None:
    dataset = run(tmp_path / "out", {3: "large"})
    assert dataset.info["checks"]["other_resolution"] == {"episodes": 1, "count": 1}


def test_images_that_repeat_while_the_robot_moves_are_counted(tmp_path: Path) -> None:
    dataset = run(tmp_path / "out", {3: "repeats"})
    assert dataset.info["checks"] == {"repeated_frames": {"episodes": 1, "count": 2}}


def test_what_is_only_reported_can_be_refused(tmp_path: Path) -> None:
    acts = {3: "repeats"}
    with pytest.raises(Fault, match="episode 3: base repeats 2 of 10 images"):
        run(tmp_path / "out", acts, refuse=("repeated_frames",))
    dataset = run(tmp_path / "out", acts, refuse=("repeated_frames", "jump"), on_fault="skip")
    assert dataset.info["num_episodes"] == 5
    assert dataset.info["checks"] == {"repeated_frames": {"episodes": 1, "count": 1}}
    with pytest.raises(UsageError, match=r"--refuse outside_quantiles is unknown. Known are dropped_frames, rate"):
        run(tmp_path / "other", refuse=("outside_quantiles",))


def test_few_images_are_in_memory_at_once(tmp_path: Path) -> None:
    images: list[weakref.ref[np.ndarray]] = []
    most = 0

    class Image(np.ndarray):
        """An array that can be watched."""

    def frames() -> Iterator[np.ndarray]:
        nonlocal most
        for t in range(40):
            image = picture(0, 0, t).view(Image)
            images.append(weakref.ref(image))
            most = max(most, sum(each() is not None for each in images))
            yield image

    def read(number: int) -> Episode:
        rows = np.cumsum(np.full((40, 2), 0.01), axis=0)
        return Episode("Push", np.concatenate([rows, rows[:, :1] > 0.2], axis=1), rows, {"base": frames()})

    source = FunctionSource("watched", ROBOT, 2, read)
    assert open_dataset(convert_recordings(source, settings(tmp_path / "out"))).samples.num_rows == 80
    assert most <= 3


def test_a_full_disk_is_no_fault_of_an_episode(
    tmp_path: Path, room_for: Callable[[int], AbstractContextManager[None]]
) -> None:
    with room_for(20_000), pytest.raises(DiskFullError):
        run(tmp_path / "out", on_fault="skip")
    assert not (tmp_path / "out").exists()


def test_a_dataset_of_recordings_can_be_replaced(tmp_path: Path) -> None:
    run(tmp_path / "out")
    with pytest.raises(DataError, match="already exists"):
        run(tmp_path / "out")
    assert run(tmp_path / "out", image_size=32, overwrite=True).info["recorded"] == {"image_size": [32]}


@pytest.mark.parametrize(
    ("name", "key"), [("my-lab/cubes v2", "my_lab_cubes_v2"), ("..", "recordings"), ("ä" * 90, "recordings")]
)
def test_any_name_becomes_a_proper_key(name: str, key: str) -> None:
    assert key_name(name) == key


def test_sources_are_left_alone(tmp_path: Path, lerobot_roots: dict[str, Path]) -> None:
    from pokevla.cli.main import run as command

    root = lerobot_roots["v3.0"]
    before = files(root)
    assert command(["data", "convert", "lerobot", str(root), str(root / "out")]) == 2
    assert files(root) == before
    assert lerobot_source(root).num_episodes == 5
