from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import xxhash

from pokevla.data.dataset import open_dataset
from pokevla.data.inspection import verify_dataset
from pokevla.data.sources.episodes import EPISODE_SCHEMA, SAMPLE_SCHEMA
from pokevla.data.sources.libero import LiberoSettings, convert_libero
from pokevla.data.writer import DatasetWriter, encode_json
from pokevla.embodiment.description import Embodiment
from pokevla.errors import DataError, DiskFullError
from pokevla.shards.index import load_index
from tests.toys import forget_checksums
from tests.unit.embodiment.robots import TWO_HANDED

RoomFor = Callable[[int], AbstractContextManager[None]]
SCHEMA = pa.schema([("key", pa.string()), ("shard", pa.int32()), ("split", pa.string())])


def write(out: Path, count: int = 5, overwrite: bool = False, seed: int = 0) -> Path:
    with DatasetWriter(out, group="g", samples=SCHEMA, shard_samples=2, overwrite=overwrite) as writer:
        for i in range(count):
            members = {"jpg": bytes([seed, i]) * (100 * i + 1), "json": b'{"key":"k%d"}' % i}
            writer.add_sample(f"k{i}", members, {"split": "train"})
        return writer.finish({"statistics": None})


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_two_writings_are_byte_identical(tmp_path: Path) -> None:
    assert files(write(tmp_path / "a")) == files(write(tmp_path / "b"))


def test_shards_are_ordinary_tars_and_the_index_points_into_them(tmp_path: Path) -> None:
    root = write(tmp_path / "a")
    dataset = open_dataset(root)
    assert dataset.shard_names == ["g-00000.tar", "g-00001.tar", "g-00002.tar"]
    assert dataset.samples["shard"].to_pylist() == [0, 0, 1, 1, 2]
    for name in dataset.shard_names:
        path = root / "shards" / name
        raw = path.read_bytes()
        with tarfile.open(path) as tar:
            payloads = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
            assert all(m.mtime == 0 for m in tar.getmembers())
        indexed = {f"{e.key}.{m.extension}": m for e in load_index(path, "") for m in e.members}
        assert set(indexed) == set(payloads)
        for member_name, member in indexed.items():
            assert raw[member.offset : member.offset + member.size] == payloads[member_name]
            assert member.checksum == xxhash.xxh64_intdigest(payloads[member_name])


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first = open_dataset(write(tmp_path / "a")).fingerprint
    assert first == open_dataset(write(tmp_path / "b")).fingerprint
    assert first != open_dataset(write(tmp_path / "c", seed=1)).fingerprint


def add_frame(writer: DatasetWriter, views: Sequence[str], proprio: int) -> None:
    row = {"episode": 0, "frame": 0, "split": "train", "proprio": [0.0] * proprio}
    writer.add_sample("k0", {f"{view}.jpg": b"image" for view in views} | {"json": b'{"key":"k0"}'}, row)


def write_frame(out: Path, embodiment: Embodiment) -> Path:
    with DatasetWriter(out, group="g", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, embodiment=embodiment) as writer:
        add_frame(writer, embodiment.views, embodiment.proprio_width)
        return writer.finish({"statistics": None})


def test_another_description_is_another_dataset(tmp_path: Path) -> None:
    slower = replace(TWO_HANDED, version=2, control_rate_hz=5.0)
    datasets = [open_dataset(write_frame(tmp_path / robot.name / str(robot.version), robot)) for robot in
                (TWO_HANDED, slower)]  # fmt: skip
    assert [dataset.embodiment for dataset in datasets] == [TWO_HANDED, slower]
    assert datasets[0].fingerprint != datasets[1].fingerprint
    forget_checksums(datasets[0].root)
    info = datasets[0].root / "dataset.json"
    info.write_text(info.read_text().replace('"control_rate_hz": 10.0', '"control_rate_hz": 20.0'))
    with pytest.raises(DataError, match="a table or the embodiment differs from the fingerprint"):
        verify_dataset(datasets[0].root)


@pytest.mark.parametrize(
    ("views", "proprio", "message"),
    [
        (
            ("front", "left"),
            10,
            r"sample k0 lacks right\.jpg: .* two-handed has the views front, left, right",
        ),
        (
            ("front", "left", "right"),
            8,
            r"sample k0: proprio has shape \(8,\); .* two-handed has 10 numbers",
        ),
    ],
)
def test_a_sample_that_is_not_the_robot_s_is_refused(
    tmp_path: Path, views: Sequence[str], proprio: int, message: str
) -> None:
    with (
        pytest.raises(DataError, match=message),
        DatasetWriter(tmp_path / "a", group="g", samples=SAMPLE_SCHEMA, embodiment=TWO_HANDED) as writer,
    ):
        add_frame(writer, views, proprio)


def test_actions_of_another_width_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"episode 3: actions has shape \(2, 7\); .* has 9 numbers"),
        DatasetWriter(
            tmp_path / "a", group="g", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, embodiment=TWO_HANDED
        ) as writer,
    ):
        writer.add_episode({"episode": 3, "actions": [[0.0] * 7] * 2, "proprio": [[0.0] * 10] * 2})


@pytest.mark.parametrize(("bad", "words"), [(float("nan"), "is nan, not finite"), (1e9, r"is 1e\+09, above the limit")])
def test_bad_numbers_of_any_robot_are_refused_with_episode_and_row(tmp_path: Path, bad: float, words: str) -> None:
    actions = [[0.0] * 9, [0.0] * 8 + [bad]]
    with (
        pytest.raises(DataError, match=f"episode 3: actions, row 1: column 8 {words}"),
        DatasetWriter(
            tmp_path / "a", group="g", samples=SAMPLE_SCHEMA, episodes=EPISODE_SCHEMA, embodiment=TWO_HANDED
        ) as writer,
    ):
        writer.add_episode({"episode": 3, "actions": actions, "proprio": [[0.0] * 10] * 2})
    with pytest.raises(DataError, match="cannot be stored as JSON"):
        encode_json({"value": bad if bad != bad else float("inf")})


def test_an_existing_dataset_is_replaced_only_on_request(tmp_path: Path) -> None:
    root = write(tmp_path / "a")
    with pytest.raises(DataError, match="--overwrite"):
        write(root)
    write(root, count=3, overwrite=True)
    assert open_dataset(root).samples.num_rows == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with DatasetWriter(tmp_path / "a", group="g", samples=SCHEMA) as writer:
            writer.add_sample("k", {"json": b"{}"}, {"split": "train"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_no_sample_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no sample"):
        write(tmp_path / "a", count=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [3, 2_000, 60_000])
def test_a_full_disk_is_one_clear_error_and_no_dataset(
    tmp_path: Path, libero_file: Callable[..., Path], room_for: RoomFor, limit: int
) -> None:
    source, out = libero_file(demos=4, frames=40), tmp_path / "out" / "ds"
    with room_for(limit), pytest.raises(DiskFullError, match=r"No room to write .*/out/ds"):
        convert_libero(LiberoSettings(source, out))
    assert list(out.parent.iterdir()) == []
    convert_libero(LiberoSettings(source, out))
    assert verify_dataset(out) > 0


def test_only_a_dataset_without_foreign_files_is_replaced(tmp_path: Path) -> None:
    root = write(tmp_path / "a")
    (root / "shards" / "thesis.tex").write_text("ten years of work")
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("ten years of work")
    before = files(tmp_path)
    with pytest.raises(DataError, match=r"a/shards/thesis.tex does not belong to the dataset"):
        write(root, overwrite=True)
    for out in (home, home / "thesis.tex"):
        with pytest.raises(DataError, match="it cannot be recognised as a dataset"):
            write(out, overwrite=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize("split", ["all", "", "../x", "a\nb", 3])
def test_a_split_has_a_name_that_can_be_chosen(tmp_path: Path, split: object) -> None:
    with (
        pytest.raises(DataError, match=r"sample k is of split .*Use `train` or `val`"),
        DatasetWriter(tmp_path / "a", group="g", samples=SCHEMA) as writer,
    ):
        writer.add_sample("k", {"json": b"{}"}, {"split": split})
