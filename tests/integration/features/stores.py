"""A moto server on loopback that holds datasets and caches, and a proxy before it that plants faults."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from benchmarks.planted_delay import Proxy

BUCKET = "robots"
KEY_ID = "AKIATESTTESTTEST"
SECRET = "hunter2-very-secret"
REGION = "us-east-1"


@dataclass(frozen=True)
class ObjectStore:
    """Buckets of a moto server behind a proxy, to which the environment points."""

    proxy: Proxy
    server: str

    def upload(self, folder: Path, name: str) -> str:
        """Put all files of a folder below `name`; returns its URL."""
        client = _client(self.server)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.upload_file(str(path), BUCKET, f"{name}/{path.relative_to(folder).as_posix()}")
        return f"s3://{BUCKET}/{name}"

    def put(self, key: str, content: bytes) -> None:
        """Replace one file."""
        _client(self.server).put_object(Bucket=BUCKET, Key=key, Body=content)

    def web(self, name: str) -> str:
        """The same folder for a web client."""
        return f"{self.proxy.url}/{BUCKET}/{name}"


def _client(endpoint: str):
    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET}
    return boto3.client("s3", endpoint_url=endpoint, region_name=REGION, **keys)


@contextmanager
def moto_server() -> Iterator[str]:
    """The URL of a moto server with the empty bucket BUCKET, readable for everybody."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        _client(url).create_bucket(Bucket=BUCKET, ACL="public-read")
        yield url
    finally:
        server.stop()


def point_environment(patch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    """Have new s3 clients of this process and its children use `endpoint`, and copies go below `cache`."""
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setenv("AWS_ENDPOINT_URL", endpoint)
    patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    patch.setenv("AWS_DEFAULT_REGION", REGION)
    patch.setenv("AWS_CONFIG_FILE", str(cache / "no-config"))
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(cache / "no-credentials"))
    patch.setenv("XDG_CACHE_HOME", str(cache))
