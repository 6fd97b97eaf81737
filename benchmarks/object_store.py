"""Feature records read from an object store with planted latency, against the same files on disk.

The store is moto on loopback, in Python and in a process of its own: it answers some hundred requests a second, so what
counts is the ratio between latencies, and the limit that bytes in flight set. Times are
wall-clock, best of `--repeats`.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import boto3
import numpy as np

from benchmarks.readers.ours import LAYOUTS, random_records, write_cache
from benchmarks.reporting import report, row
from pokevla.data.dataset import open_dataset
from pokevla.data.loading.memory import FeatureSlots, page_aligned
from pokevla.features.feature_reader import FeatureReader
from pokevla.files.remote.settings import MIB, StorageSettings
from pokevla.files.remote.urls import as_url
from pokevla.shards.remote.storage import Storage

BUCKET = "bench"
LATENCIES_MS = (0, 1, 10, 50)


def free_port() -> int:
    """A port of loopback that nobody listens to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def moto_process() -> Iterator[int]:
    """The port of a moto server in a process of its own."""
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield port
        finally:
            server.kill()


@contextmanager
def delayed(port: int, delay_ms: float) -> Iterator[int]:
    """The port of a proxy that adds a delay to every request."""
    command = [sys.executable, str(Path(__file__).with_name("planted_delay.py")), str(port), str(delay_ms / 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as proxy:
        try:
            assert proxy.stdout is not None
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()


def upload(folder: Path, port: int) -> None:
    """Put all files of a folder into the bucket."""
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}")
    client.create_bucket(Bucket=BUCKET)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())


def samples_per_s(root: Path, settings: StorageSettings, batch: int, threads: int, repeats: int) -> float:
    """Records per second of all records in a fixed random order, in batches that `threads` read at the same time."""
    dataset = open_dataset(root / "dataset", mapped=True, storage=Storage(settings))
    reader = FeatureReader.of(root / "cache", dataset)
    count = len(dataset.rows)
    rows = np.random.default_rng(0).permutation(count)
    batches = [rows[start : start + batch].tolist() for start in range(0, count, batch)]

    def read(wanted: list[int]) -> None:
        slots = FeatureSlots(reader.fields, len(wanted), page_aligned)
        reader.ahead(wanted)
        for place, each in enumerate(wanted):
            reader.read_row(each, slots.buffers(place))

    def once() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read, batches))

    once()  # copies the indices
    return count / min(_seconds(once) for _ in range(repeats))


def _seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Print and write the rows `object_store/<ms>`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--size", choices=sorted(LAYOUTS), default="mini", help="size of a record")
    parser.add_argument("--records", type=int, default=192)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--mib-in-flight", type=int, default=256)
    options = parser.parse_args()
    layout = LAYOUTS[options.size]
    settings = StorageSettings(bytes_in_flight=options.mib_in_flight * MIB)
    reading = (settings, options.batch, options.threads, options.repeats)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name, moto_process() as port:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "copies")
        write_cache(folder / "source", layout, random_records(layout, options.records))
        upload(folder / "source", port)
        disk = samples_per_s(folder / "source", *reading)
        rows = [row("object_store/disk", disk, "samples/s", f"{layout.payload_bytes / MIB:.2f} MiB a record")]
        for delay_ms in LATENCIES_MS:
            with delayed(port, delay_ms) as proxy:
                os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy}"
                import s3fs

                s3fs.S3FileSystem.clear_instance_cache()
                speed = samples_per_s(as_url(f"s3://{BUCKET}"), *reading)
            in_flight = min(settings.bytes_in_flight, options.threads * options.batch * layout.payload_bytes)
            limit = in_flight / layout.payload_bytes / (delay_ms / 1000) if delay_ms else float("inf")
            bound = f"limit by bytes in flight {limit:.0f}/s" if delay_ms else "proxy without delay"
            rows.append(row(f"object_store/{delay_ms}", speed, "samples/s", f"disk; {bound}", speed / disk))
    report(rows, options.json)


if __name__ == "__main__":
    main()
