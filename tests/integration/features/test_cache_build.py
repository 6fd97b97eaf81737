"""A cache has the dataset's keys in the dataset's shards, survives a kill, and never leaves an incomplete file."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset as wds

from pokevla.data.dataset import open_dataset
from pokevla.errors import CacheMismatchError, DataError, DiskFullError, UsageError
from pokevla.features.cache_build import build_cache, cache_shards
from pokevla.features.cache_claims import claim_shard
from pokevla.features.cache_files import COMPLETE_NAME, read_manifest, write_manifest
from pokevla.features.cache_verify import cache_info, stored_features, verify_cache
from pokevla.features.encoding import image_source, read_images
from pokevla.features.feature_reader import open_directory, open_features
from pokevla.features.layout import ALIGNMENT, RecordLayout, decode_record, in_file_order
from pokevla.recipe.sections import CacheConfig, TeacherConfig
from pokevla.shards.index import load_index
from pokevla.teachers.teacher import RANDOM_NOTE, build_teacher
from tests.toys import forget_checksums
from tests.unit.data.test_sharing import code_of


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((directory / "shards").iterdir())}


def test_same_keys_in_the_same_shards_readable_by_webdataset(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory = build_cache(dataset_root, cache_config, batch=3)
    layout = RecordLayout.from_manifest(cache_info(directory))
    for source in sorted((dataset_root / "shards").glob("*.tar")):
        shard = directory / "shards" / source.name
        keys = [entry.key for entry in load_index(source, "")]
        assert [entry.key for entry in load_index(shard, "")] == keys
        read = list(wds.WebDataset(str(shard), shardshuffle=False))
        assert [sample["__key__"] for sample in read] == keys
        for sample in read:
            decode_record(sample["pkvf"], layout)


def test_the_page_on_sharing_gives_what_our_reader_gives(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory, dataset = build_cache(dataset_root, cache_config), open_dataset(dataset_root)
    (reader,) = open_features(cache_config, [dataset])
    read = list(code_of("cached_features")["cached_features"](directory))
    assert [key for key, _ in read] == dataset.samples["key"].to_pylist()
    for row, (_, features) in enumerate(read):
        ours = reader.read_features(row)
        assert [array.tobytes() for array in in_file_order(features)] == [a.tobytes() for a in in_file_order(ours)]


def test_payloads_start_at_page_boundaries(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory = build_cache(dataset_root, cache_config)
    offsets = [
        entry.members[0].offset for shard in (directory / "shards").glob("*.tar") for entry in load_index(shard, "")
    ]
    assert len(offsets) == 20
    assert all(offset % ALIGNMENT == 0 for offset in offsets)


@pytest.mark.parametrize("codec", ["int8", "int4", "fp16"])
def test_cached_features_are_those_of_the_teachers_on_the_clean_images(
    dataset_root: Path, cache_config: CacheConfig, codec: str
) -> None:
    sam_codec, vggt_least = ("int8", 0.994) if codec == "int4" else (codec, 0.9999)
    config = cache_config.model_copy(update={"sam_codec": sam_codec, "vggt_codec": codec})
    (reader,) = open_features(config, [open_dataset_after_build(dataset_root, config)])
    dataset = open_dataset(dataset_root)
    keys = dataset.samples["key"].to_pylist()
    images = torch.from_numpy(read_images(image_source(dataset), range(len(keys))))
    features = stored_features([reader.read(key) for key in keys])
    for teacher in config.all_teachers.values():
        stored, fresh = features[teacher.kind], build_teacher(teacher).encode(images)[teacher.kind]
        least = vggt_least if teacher.kind == "vggt" else 0.9999
        assert torch.nn.functional.cosine_similarity(stored.flatten(1), fresh.flatten(1)).min() > least
        assert (stored - fresh).abs().max() < (0.07 if least < 0.999 else 0.03) * fresh.abs().max()


def open_dataset_after_build(dataset_root: Path, config: CacheConfig):
    build_cache(dataset_root, config, batch=7)
    return open_dataset(dataset_root)


def test_batch_size_does_not_change_what_is_stored(dataset_root: Path, cache_config: CacheConfig) -> None:
    one = open_directory(build_cache(dataset_root, cache_config, batch=1))
    other_place = cache_config.model_copy(update={"root": cache_config.root.with_name("other")})
    many = open_directory(build_cache(dataset_root, other_place, batch=20))
    for key in one.keys:
        for a, b in zip(in_file_order(one.read(key)), in_file_order(many.read(key)), strict=True):
            # Another batch may round a value to the neighbouring code.
            assert np.abs(a.astype(np.float64) - b.astype(np.float64)).max() <= (1 if a.dtype == np.int8 else 1e-4)


def test_progress_counts_every_sample(dataset_root: Path, cache_config: CacheConfig) -> None:
    seen: list[tuple[int, int]] = []
    build_cache(dataset_root, cache_config, batch=3, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20, 20)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_finished_cache_is_not_built_again(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory = build_cache(dataset_root, cache_config)
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    assert build_cache(dataset_root, cache_config) == directory
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


@pytest.mark.parametrize("name", ["manifest.json", "shards/libero_object-00001.idx", "shards/libero_object-00001.tar"])
def test_damaged_or_missing_files_of_a_finished_cache_are_made_again(
    dataset_root: Path, cache_config: CacheConfig, name: str
) -> None:
    directory = build_cache(dataset_root, cache_config)
    before = files(directory)
    if name.endswith("tar"):
        (directory / name).unlink()
    else:
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content.replace(b"1", b"2", 1))
    with pytest.raises(DataError):
        verify_cache(directory, recompute=0)
    build_cache(dataset_root, cache_config)
    assert files(directory) == before
    assert verify_cache(directory, recompute=0).records == 20


def test_random_teachers_say_that_they_carry_no_knowledge(dataset_root: Path, cache_config: CacheConfig) -> None:
    info = cache_info(build_cache(dataset_root, cache_config))
    assert info["random"] == {"sam": True, "vggt": True}
    assert info["note"] == RANDOM_NOTE
    assert all(RANDOM_NOTE in line for line in info["teachers"].values())
    assert info["num_samples"] == 20


BUILD = """
import sys
from pathlib import Path
from pokevla.recipe.schema import CacheConfig
from pokevla.features.cache_build import build_cache

build_cache(Path(sys.argv[1]), CacheConfig.model_validate_json(sys.argv[2]), device="cpu")
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from pokevla.recipe.schema import CacheConfig
from pokevla.features.cache_build import build_cache

def kill_late(done: int, total: int) -> None:
    if done >= 12:
        os.kill(os.getpid(), signal.SIGKILL)

build_cache(Path(sys.argv[1]), CacheConfig.model_validate_json(sys.argv[2]), 2, kill_late, "cpu")
"""


def test_killed_build_goes_on_with_the_missing_shards_only(
    dataset_root: Path, cache_config: CacheConfig, tiny_run_env: dict[str, str]
) -> None:
    arguments = [sys.executable, "-c", KILLED, str(dataset_root), cache_config.model_dump_json()]
    assert subprocess.run(arguments, env=tiny_run_env, check=False).returncode == -signal.SIGKILL
    (directory,) = cache_config.root.iterdir()
    assert not (directory / "COMPLETE").exists()
    finished = directory / "shards" / "libero_object-00000.tar"
    assert sorted(path.name for path in finished.parent.glob("libero*.tar")) == [finished.name]
    assert list(finished.parent.glob(".tmp-*"))
    with pytest.raises(DataError, match=r"not complete \(1 shards are\).*pokevla cache build RECIPE"):
        open_features(cache_config, [open_dataset(dataset_root)])
    stamp = finished.stat().st_mtime_ns
    first: list[int] = []
    build_cache(dataset_root, cache_config, 2, on_progress=lambda done, total: first.append(done))
    assert first[0] == 10  # 8 existed already
    assert finished.stat().st_mtime_ns == stamp
    assert not list(finished.parent.glob(".tmp-*"))
    elsewhere = cache_config.model_copy(update={"root": cache_config.root.with_name("whole")})
    assert files(directory) == files(build_cache(dataset_root, elsewhere, 2))


def test_full_disk_ends_with_one_line_and_no_half_written_shard(
    make_dataset: Callable[..., Path], cache_config: CacheConfig
) -> None:
    root = make_dataset("uneven", samples=12, shard_samples=8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the file size makes a write fail halfway, like a full disk or a quota.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(DiskFullError, match="No room to write"):
            build_cache(root, cache_config, batch=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (directory,) = cache_config.root.iterdir()
    assert list((directory / "shards").iterdir()) == []
    assert not (directory / "COMPLETE").exists()
    assert cache_info(build_cache(root, cache_config))["num_samples"] == 12


def test_vlm_dataset_is_refused(make_dataset: Callable[..., Path], cache_config: CacheConfig) -> None:
    root = make_dataset("vlm")
    forget_checksums(root)
    info = root / "dataset.json"
    info.write_text(info.read_text().replace('"kind": "robot"', '"kind": "vlm"'))
    with pytest.raises(DataError, match="features are cached for robot datasets"):
        build_cache(root, cache_config)


def test_verify_accepts_a_good_cache_and_compares_with_fresh_features(
    dataset_root: Path, cache_config: CacheConfig
) -> None:
    report = verify_cache(build_cache(dataset_root, cache_config), recompute=3)
    assert (report.records, report.recomputed) == (20, 3)
    assert set(report.cosines) == {"sam", "vggt"}
    assert min(report.cosines.values()) > 0.999


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "header"])
def test_verify_names_the_damaged_shard(dataset_root: Path, cache_config: CacheConfig, damage: str) -> None:
    directory = build_cache(dataset_root, cache_config)
    shard = directory / "shards" / "libero_object-00001.tar"
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[load_index(shard, "")[3].members[0].offset + 5] ^= 1
    if damage == "header":
        with tarfile.open(shard) as tar:
            content[tar.getmembers()[2].offset_data] ^= 1
    shard.write_bytes(content[:5000] if damage == "truncate" else content)
    if damage == "remove":
        shard.unlink()
    with pytest.raises(DataError, match=shard.name):
        verify_cache(directory, recompute=0)


def test_verify_notices_features_of_another_image(
    dataset_root: Path, make_dataset: Callable[..., Path], cache_config: CacheConfig
) -> None:
    directory = build_cache(dataset_root, cache_config)
    other = make_dataset("other", seed=1)
    with pytest.raises(CacheMismatchError, match="dataset is"):
        verify_cache(directory, dataset_root=other)
    swapped = build_cache(other, cache_config)
    for name, content in files(swapped).items():
        (directory / "shards" / name).write_bytes(content)
    with pytest.raises(DataError, match=r"idx is damaged: its checksum differs"):
        verify_cache(directory)
    write_manifest(directory, read_manifest(directory))  # with the checksums of the other indices
    with pytest.raises(DataError, match="recomputed features differ"):
        verify_cache(directory)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (float("nan"), "vision_encoder.pos_embed holds 256 of 256 numbers that are NaN"),
        (3e38, "field sam holds a value that is not finite"),  # finite weights, whose products overflow
    ],
)
def test_teacher_that_gives_nonsense_stops_the_build(
    dataset_root: Path, cache_config: CacheConfig, tmp_path: Path, added: float, message: str
) -> None:
    state = build_teacher(TeacherConfig(kind="sam", preset="tiny")).module.state_dict()
    state["vision_encoder.pos_embed"] += added
    torch.save(state, tmp_path / "broken.pth")
    broken = TeacherConfig(kind="sam", preset="tiny", weights=tmp_path / "broken.pth")
    with pytest.raises(DataError, match=message):
        build_cache(dataset_root, cache_config.model_copy(update={"sam": broken}))
    assert not list(cache_config.root.rglob("*.tar"))


def test_two_builders_share_the_shards(dataset_root: Path, cache_config: CacheConfig, tmp_path: Path) -> None:
    directory, names, missing = cache_shards(dataset_root, cache_config)
    assert missing == names
    (directory / "shards").mkdir(parents=True)
    with claim_shard(directory, names[0]) as mine:
        assert mine
        build_cache(dataset_root, cache_config, names=names[1:], stall_s=None)  # leaves the first to us
        assert cache_shards(dataset_root, cache_config)[2] == names[:1]
        assert not (directory / COMPLETE_NAME).exists()
    seen: list[tuple[int, int]] = []
    build_cache(dataset_root, cache_config, on_progress=lambda *counts: seen.append(counts))
    assert (seen[0][1], seen[-1]) == (20, (20, 20))
    assert (directory / COMPLETE_NAME).is_file()
    assert not list(directory.glob(".build.*"))
    whole = build_cache(dataset_root, cache_config.model_copy(update={"root": tmp_path / "whole"}))
    assert whole.name == directory.name
    assert files(whole) == files(directory)


def test_it_begins_with_the_shards_that_are_named(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory, names, _ = cache_shards(dataset_root, cache_config)
    build_cache(dataset_root, cache_config, names=names[2:])
    times = {name: (directory / "shards" / name).stat().st_mtime_ns for name in names}
    assert min(times, key=lambda name: times[name]) == names[2]


def test_the_shard_of_a_killed_builder_is_taken_over(
    dataset_root: Path, cache_config: CacheConfig, tiny_run_env: dict[str, str]
) -> None:
    directory, names, _ = cache_shards(dataset_root, cache_config)
    (directory / "shards").mkdir(parents=True)
    code = (
        "import sys, time; from pathlib import Path; from pokevla.features.cache_claims import claim_shard\n"
        "with claim_shard(Path(sys.argv[1]), sys.argv[2]) as mine: print(mine, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(directory), names[0]], env=tiny_run_env, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with pytest.raises(UsageError, match=rf"the first is {names[0]}; it is claimed by process {other.pid} on"):
            build_cache(dataset_root, cache_config, stall_s=0.2)
        assert cache_shards(dataset_root, cache_config)[2] == names[:1]
        killer = threading.Timer(1.0, other.kill)
        killer.start()
        build_cache(dataset_root, cache_config, stall_s=60.0)  # waits for it, then finds it dead
    assert (directory / COMPLETE_NAME).is_file()


def test_two_processes_repair_a_finished_cache(
    dataset_root: Path, cache_config: CacheConfig, tiny_run_env: dict[str, str]
) -> None:
    directory = build_cache(dataset_root, cache_config)
    before = files(directory)
    (directory / "shards" / "libero_object-00001.idx").write_bytes(b"damaged")
    arguments = [sys.executable, "-c", BUILD, str(dataset_root), cache_config.model_dump_json()]
    with subprocess.Popen(arguments, env=tiny_run_env) as one, subprocess.Popen(arguments, env=tiny_run_env) as other:
        assert [one.wait(400), other.wait(400)] == [0, 0]
    assert files(directory) == before
    assert verify_cache(directory, recompute=0).records == 20


WATCHED = """
import sys
from pathlib import Path
from pokevla.recipe.schema import CacheConfig
from pokevla.features import encoding
from pokevla.features.cache_build import build_cache

encoding.LOOK_S = 0.0
config = CacheConfig.model_validate_json(sys.argv[2])
build_cache(Path(sys.argv[1]), config, 2, lambda *counts: print(*counts, flush=True), "cpu")
"""


def test_two_processes_build_one_cache_and_each_tells_what_both_have_done(
    make_dataset: Callable[..., Path], cache_config: CacheConfig, tiny_run_env: dict[str, str]
) -> None:
    dataset = make_dataset("larger", samples=160, shard_samples=8)
    arguments = [sys.executable, "-c", WATCHED, str(dataset), cache_config.model_dump_json()]
    running = [subprocess.Popen(arguments, env=tiny_run_env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    heard = []
    for process in running:
        text, _ = process.communicate(timeout=400)
        assert process.returncode == 0
        heard.append([tuple(map(int, line.split())) for line in text.splitlines()])
    for lines in heard:
        done = [count for count, _ in lines]
        assert done == sorted(done)
        assert lines[-1] == (160, 160)
    elsewhere = cache_config.model_copy(update={"root": cache_config.root.with_name("alone")})
    (directory,) = cache_config.root.iterdir()
    assert files(directory) == files(build_cache(dataset, elsewhere, 2))
    assert not list(directory.glob(".build.*")), "the last one tidies up"


def test_samples_of_others_count_as_soon_as_their_shard_is_there(dataset_root: Path, cache_config: CacheConfig) -> None:
    directory, names, _ = cache_shards(dataset_root, cache_config)
    build_cache(dataset_root, cache_config.model_copy(update={"root": cache_config.root.with_name("other")}), 4)
    made = cache_config.root.with_name("other") / directory.name / "shards"
    seen: list[int] = []

    def copy_the_last(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 1:
            for suffix in (".tar", ".idx"):
                shutil.copy(made / Path(names[2]).with_suffix(suffix), directory / "shards")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pokevla.features.encoding.LOOK_S", 0.0)
        build_cache(dataset_root, cache_config, 4, copy_the_last)
    assert seen == [4, 12, 16, 20], "the last shard's four samples are told of beside our second batch"
