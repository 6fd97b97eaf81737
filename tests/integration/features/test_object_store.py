"""Datasets and caches behind a URL give the batches of the same files on disk, and faults are survived or named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import s3fs
import torch

from benchmarks.planted_delay import Fault, Proxy
from pokevla.data.dataset import open_dataset
from pokevla.data.loader import batch_maker
from pokevla.data.loading.memory import page_aligned
from pokevla.data.loading.process_loader import DataProcess, ProcessLoader
from pokevla.data.mixture import open_mixture
from pokevla.data.reader import ShardReader
from pokevla.data.samples import RobotSampleMaker
from pokevla.errors import DataError, UsageError
from pokevla.features.cache_build import build_cache
from pokevla.features.feature_reader import open_features
from pokevla.files.remote.mirror import mirror_root
from pokevla.files.remote.settings import StorageSettings
from pokevla.files.remote.urls import UrlPath
from pokevla.jobs.checks.start import _shards
from pokevla.recipe.checking.datasets import read_dataset_info, read_mixture_embodiment
from pokevla.recipe.planning.plan import count_samples
from pokevla.recipe.schema import PosttrainRecipe
from pokevla.recipe.sections import CacheConfig, DataConfig
from pokevla.shards.remote.staging import SUBFOLDER
from pokevla.shards.remote.storage import Storage
from tests.integration.features.stores import BUCKET, SECRET, ObjectStore, moto_server, point_environment
from tests.unit.data.conftest import WordTokenizer

pytest.importorskip("s3fs")


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """A server for all tests; each uploads below a name of its own."""
    with moto_server() as url:
        yield url


@pytest.fixture
def store(moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The server behind a proxy of the test."""
    with Proxy(int(moto.rsplit(":", 1)[1])) as proxy:
        point_environment(monkeypatch, proxy.url, tmp_path / "home-cache")
        yield ObjectStore(proxy, moto)


@pytest.fixture
def uploaded(store: ObjectStore, dataset_root: Path, tmp_path: Path) -> str:
    """URL of the dataset."""
    return store.upload(dataset_root, f"{tmp_path.name}/dataset")


def recipe_of(path: object, cache: CacheConfig, **storage: Any) -> PosttrainRecipe:
    values = {
        "kind": "posttrain", "name": "x", "steps": 1,
        "data": {"datasets": [{"path": str(path)}], "storage": storage, "reader_threads": 2},
        "optim": {"lr": 1e-3}, "batch": {"global": 4, "micro": 4},
        "cache": cache.model_dump(mode="json"),
    }  # fmt: skip
    return PosttrainRecipe.model_validate(values)


def make_of(recipe: PosttrainRecipe) -> Any:
    """What makes the batches, as a loader's process opens it."""
    mixture = open_mixture(recipe.data, "robot")
    assert recipe.cache is not None
    features = open_features(recipe.cache, mixture.datasets)
    samples = RobotSampleMaker(mixture, 7, WordTokenizer(), 32, None, features)
    return batch_maker(recipe, mixture, samples)


def same(one: Any, other: Any) -> bool:
    names = ("positions", "pixel_values", "input_ids", "proprio", "actions", "crop_boxes")
    equal = all(torch.equal(getattr(one, name), getattr(other, name)) for name in names)
    features = [torch.equal(one.features[name].values, other.features[name].values) for name in one.features]
    return equal and one.keys == other.keys and all(features) and set(one.features) == set(other.features)


def read_all(url: object, **settings: Any) -> list[dict[str, bytes]]:
    chosen = {"attempts": 3, "timeout_s": 5.0, **settings}
    dataset = open_dataset(Path(str(url)), mapped=True, storage=Storage(StorageSettings(**chosen)))
    reader = ShardReader(dataset)
    reader.ahead(range(len(dataset.rows)))
    return [reader.read(row) for row in range(len(dataset.rows))]


def once(word: str, fault: Fault) -> Callable[[str], Fault | None]:
    """Plants a fault into the first request that holds `word`."""
    left = [fault]
    return lambda head: left.pop() if left and word in head.partition("\r\n")[0] else None


def test_batches_are_those_from_disk_also_through_a_forked_loader(
    store: ObjectStore, dataset_root: Path, cache_config: CacheConfig, tmp_path: Path
) -> None:
    build_cache(dataset_root, cache_config)
    disk = make_of(recipe_of(dataset_root, cache_config))
    data = store.upload(dataset_root, f"{tmp_path.name}/data")
    cache = store.upload(cache_config.root, f"{tmp_path.name}/cache")
    recipe = recipe_of(data, cache_config.model_copy(update={"root": UrlPath(cache)}))
    here = make_of(recipe)  # opens the file systems before the fork
    batches = [np.arange(first, first + 4) for first in range(0, 40, 4)]
    expected = [disk(positions, page_aligned) for positions in batches]
    assert all(same(here(positions, page_aligned), batch) for positions, batch in zip(batches, expected, strict=True))
    shared: dict[str, Any] = {"rank": 0, "world_size": 1, "micro": 4, "prefetch": 3}
    with ProcessLoader(DataProcess(3), make_of, (recipe,), start_position=8, **shared) as loader:
        for batch in expected[2:8]:  # resumed at position 8
            assert same(next(loader), batch)
    assert loader.meter.take()["data_slowest_read_s"] > 0
    assert loader.meter.slowest.is_remote
    assert loader.meter.slowest.shard.startswith("s3://")


def test_a_batch_takes_few_requests_and_bytes_in_flight_are_bounded(store: ObjectStore, uploaded: str) -> None:
    dataset = open_dataset(Path(uploaded), storage=Storage(StorageSettings(bytes_in_flight=6000)))
    reader = ShardReader(dataset)
    for row in (0, 8, 16):
        reader.read(row)  # the indices are here
    store.proxy.requests.clear()
    reader.ahead(range(20))
    members = [reader.read(row) for row in (19, 3, *range(20))]
    assert len(members) == 22
    assert store.proxy.count("GET") == 3 + 2, "a request for each shard; two samples are read twice"
    assert dataset.storage.store.most_in_flight <= 6000


@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=429), Fault(keep=100), Fault(wait_s=3.0)],
    ids=["error", "throttled", "truncated", "slow"],
)
@pytest.mark.parametrize("kind", ["s3", "http"])
def test_a_passing_fault_is_tried_again(
    store: ObjectStore, uploaded: str, fault: Fault, kind: str, dataset_root: Path
) -> None:
    url = uploaded if kind == "s3" else store.web(uploaded.removeprefix(f"s3://{BUCKET}/"))
    store.proxy.fault = once("-00001.tar", fault)
    expected = read_all(dataset_root)
    assert read_all(url, timeout_s=1.0) == expected
    gets = [head for head in store.proxy.requests if head.startswith("GET")]
    assert sum("-00001.tar" in head for head in gets) == 2


def test_a_lasting_fault_names_url_key_and_attempts(store: ObjectStore, uploaded: str) -> None:
    store.proxy.fault = lambda head: Fault(status=503) if "-00001.tar" in head.partition("\r\n")[0] else None
    with pytest.raises(DataError, match=r"-00001\.tar cannot be read for .*f0008 \(.*503.*; 3 attempts\)") as caught:
        read_all(uploaded)
    assert uploaded in str(caught.value)
    assert "data.storage.attempts" in str(caught.value)


def test_truncated_for_good_and_flipped_bytes_are_errors(store: ObjectStore, uploaded: str, dataset_root: Path) -> None:
    store.proxy.fault = lambda head: Fault(keep=50) if head.startswith("GET") and ".tar" in head else None
    with pytest.raises(DataError, match=r"cannot be read for .*; 3 attempts"):
        read_all(uploaded)
    store.proxy.fault = lambda _: None
    shard = next(iter(sorted((dataset_root / "shards").glob("*.tar"))))
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    store.put(f"{uploaded.removeprefix(f's3://{BUCKET}/')}/shards/{shard.name}", bytes(content))
    with pytest.raises(DataError, match=r"is corrupted: the checksum of"):
        read_all(uploaded)


def test_a_shard_that_is_shorter_than_its_index_says_is_an_error(
    store: ObjectStore, uploaded: str, dataset_root: Path
) -> None:
    shard = next(iter(sorted((dataset_root / "shards").glob("*.tar"))))
    content = shard.read_bytes()
    store.put(f"{uploaded.removeprefix(f's3://{BUCKET}/')}/shards/{shard.name}", content[: len(content) // 2])
    with pytest.raises(DataError, match=r"00000\.tar cannot be read for .*the answer has \d+ of \d+ B; 3 attempts"):
        read_all(uploaded)


def test_missing_bucket_expired_and_missing_credentials_are_named_without_a_secret(
    store: ObjectStore, uploaded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="there is no such"):
        open_dataset(Path("s3://no-such-bucket-here/dataset"))
    with pytest.raises(DataError, match=r"dataset\.json cannot be read \(there is no such file; 1 attempt\)"):
        read_dataset_info(Path(f"s3://{BUCKET}/nothing"))
    expired = f"<Error><Code>ExpiredToken</Code><Message>The token {SECRET} has expired.</Message></Error>".encode()
    reader = ShardReader(open_dataset(Path(uploaded)))
    reader.read(8)
    store.proxy.fault = lambda head: Fault(status=400, body=expired) if head.startswith("GET") else None
    with pytest.raises(DataError, match=r"the credentials have expired; 1 attempt") as caught:
        reader.read(9)
    text = f"{caught.value} {caught.value.__cause__} {caught.value.__cause__!r}"
    assert SECRET not in text
    assert "AWS_PROFILE" in text
    store.proxy.fault = lambda head: Fault(status=403) if head.startswith("HEAD") else None
    with pytest.raises(DataError, match="access is denied"):
        open_dataset(Path(uploaded))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match="there are no credentials"):
        open_dataset(Path(uploaded))


def test_no_server_is_an_error_that_says_so(uploaded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DataError, match=r"cannot be reached; 2 attempts"):
        open_dataset(Path(uploaded), storage=Storage(StorageSettings(attempts=2, timeout_s=2.0)))


def test_small_files_are_copied_once_and_again_when_they_change(
    store: ObjectStore, uploaded: str, make_dataset: Callable[..., Path]
) -> None:
    open_dataset(Path(uploaded), mapped=True)
    store.proxy.requests.clear()
    open_dataset(Path(uploaded), mapped=True)
    assert store.proxy.count("GET") == 0
    folders = {path.parent for path in mirror_root().rglob("dataset.json")}
    other = make_dataset("other", samples=12, seed=3)
    store.upload(other, uploaded.removeprefix(f"s3://{BUCKET}/"))
    assert len(open_dataset(Path(uploaded), mapped=True).rows) == 12
    assert {path.parent for path in mirror_root().rglob("dataset.json")} > folders
    assert not list(mirror_root().rglob(".tmp-*"))
    assert read_all(uploaded) == read_all(other)


def test_staged_copies_keep_their_bound_and_are_shared_by_two_processes(
    store: ObjectStore, uploaded: str, dataset_root: Path, tmp_path: Path
) -> None:
    size = max(path.stat().st_size for path in (dataset_root / "shards").glob("*.tar"))
    settings = {"staging": tmp_path / "disk", "staging_bytes": 2 * size + 10}
    foreign = [tmp_path / "disk" / "mine.tar", tmp_path / "disk" / SUBFOLDER / "theirs.tar"]
    foreign[1].parent.mkdir(parents=True)
    for path in foreign:
        path.write_bytes(bytes(3 * size))
    expected = read_all(dataset_root)
    for url in (dataset_root, uploaded):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = 0 if _reads_staged(url, settings, expected) else 1
            finally:
                os._exit(code)
        try:
            assert _reads_staged(url, settings, expected)
        finally:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert all(path.stat().st_size == 3 * size for path in foreign), (
            "what is not ours is neither deleted nor counted"
        )
        staged = [path for path in (tmp_path / "disk" / SUBFOLDER).glob("*.tar") if path not in foreign]
        assert 1 <= len(staged) <= 2
        assert sum(path.stat().st_size for path in staged) <= settings["staging_bytes"]


def _reads_staged(url: object, settings: dict[str, Any], expected: list[dict[str, bytes]]) -> bool:
    storage = Storage(StorageSettings(**settings))
    assert storage.staging is not None
    dataset = open_dataset(Path(str(url)), storage=storage)
    for _ in range(3):
        reader = ShardReader(dataset)
        reader.ahead(range(20))
        if [reader.read(row) for row in range(20)] != expected:
            return False
        storage.staging.wait()
    return True


def test_what_is_staged_is_not_requested(store: ObjectStore, uploaded: str, tmp_path: Path) -> None:
    storage = Storage(StorageSettings(staging=tmp_path / "disk", staging_bytes=1 << 30))
    reader = ShardReader(open_dataset(Path(uploaded), storage=storage))
    first = [reader.read(row) for row in range(20)]
    assert storage.staging is not None
    storage.staging.wait()
    assert len(list((tmp_path / "disk" / SUBFOLDER).glob("*.tar"))) == 3
    store.proxy.requests.clear()
    assert [reader.read(row) for row in range(20)] == first
    assert store.proxy.requests == []


def test_a_loss_without_weight_reads_no_cache(dataset_root: Path, cache_config: CacheConfig) -> None:
    from pokevla.training.tasks import _features  # what the training opens

    recipe = recipe_of(dataset_root, cache_config)  # there is no cache: opening one would fail
    masks = recipe.loss.segmentation.model_copy(update={"weight": 0.0})
    off = recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"geometry": 0.0, "segmentation": masks})})
    mixture = open_mixture(DataConfig.model_validate({"datasets": [{"path": str(dataset_root)}]}), "robot")
    assert _features(off, mixture) is None
    with pytest.raises(DataError, match="There is no feature cache"):
        _features(recipe, mixture)


def test_checks_before_a_job_understand_urls(
    store: ObjectStore, uploaded: str, cache_config: CacheConfig, dataset_root: Path
) -> None:
    recipe = recipe_of(uploaded, cache_config)
    assert count_samples(recipe).training == count_samples(recipe_of(dataset_root, cache_config)).training
    assert read_mixture_embodiment(recipe.dataset_paths) == open_dataset(dataset_root).embodiment
    assert _shards(recipe.dataset_paths[0]) == []
    assert "there is no such file" in count_samples(recipe_of(f"{uploaded}-other", cache_config)).origin
    store.proxy.fault = lambda head: Fault(status=404) if "-00000.tar" in head.partition("\r\n")[0] else None
    with pytest.raises(DataError, match=r"00000\.tar is missing"):
        _shards(recipe.dataset_paths[0])
    with pytest.raises(UsageError, match="caches are built in a folder"):
        build_cache(dataset_root, cache_config.model_copy(update={"root": UrlPath(uploaded)}))
