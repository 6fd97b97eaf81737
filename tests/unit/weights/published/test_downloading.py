"""Downloads, from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pokevla.errors import DataError, DiskFullError, EnvironmentSetupError
from pokevla.weights.published import downloading
from pokevla.weights.published.downloading import PART, download, presence
from pokevla.weights.published.models import PublishedFile, PublishedModel

CONTENT = bytes(range(256)) * 400
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Server:
    """Serves `files` by path, like the hub and like any other server."""

    files: dict[str, bytes]
    address: str = ""
    ranges: list[str | None] = field(default_factory=list)  # Range header of each GET of a file


class Handler(BaseHTTPRequestHandler):
    def __init__(self, server: Server, *arguments: object) -> None:
        self.content = server
        super().__init__(*arguments)  # pyright: ignore[reportArgumentType]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        if self.path in self.content.files:
            self.content.ranges.append(self.headers.get("Range"))
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        body = self.content.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body[start:])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    content = Server({f"/me/model/resolve/{COMMIT}/a/b.bin": CONTENT, "/weights/b.pth": CONTENT})
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, content))
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    content.address = f"http://127.0.0.1:{http.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", content.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # as all other tests are
    yield content
    http.shutdown()
    http.server_close()
    thread.join()


def model(server: Server, name: str, *, sha256: str | None = None, size_bytes: int | None = None) -> PublishedModel:
    """A model of the hub if `name` is a path in its repository, otherwise one of any server."""
    at_hub = "/" in name
    return PublishedModel(
        name="m", title="M", licence="MIT", folder="m", files=(PublishedFile(name, size_bytes, sha256),),
        needed_for="tests", repository="me/model" if at_hub else None, revision=COMMIT,
        url=None if at_hub else f"{server.address}/weights",
    )  # fmt: skip


SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize("name", ["a/b.bin", "b.pth"])
def test_a_model_is_fetched_checked_and_not_fetched_again(name: str, server: Server, tmp_path: Path) -> None:
    wanted = model(server, name, sha256=SHA256, size_bytes=len(CONTENT))
    seen: list[tuple[str, str]] = []
    for _ in range(2):
        (path,) = download(wanted, tmp_path, lambda address, _, found: seen.append((address, found)))
        assert path == tmp_path / "m" / name
        assert path.read_bytes() == CONTENT
    assert [found for _, found in seen] == ["missing", "present"]
    assert seen[0][0].startswith(server.address)
    assert len(server.ranges) == 1


def test_an_interrupted_download_continues_where_it_stopped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / f"b.pth{PART}").write_bytes(CONTENT[:1000])
    (path,) = download(model(server, "b.pth", sha256=SHA256), tmp_path, lambda *_: None)
    assert server.ranges == ["bytes=1000-"]
    assert path.read_bytes() == CONTENT
    assert sorted(file.name for file in (tmp_path / "m").iterdir()) == ["b.pth"]


@pytest.mark.parametrize("name", ["a/b.bin", "b.pth"])
def test_what_is_not_what_was_published_is_refused_and_removed(name: str, server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not the file that was published"):
        download(model(server, name, sha256="0" * 64), tmp_path, lambda *_: None)
    assert not (tmp_path / "m" / name).exists()


def test_another_file_in_its_place_is_left_alone(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "b.pth").write_text("mine")
    with pytest.raises(DataError, match=r"m/b\.pth exists, but is not the published b\.pth"):
        download(model(server, "b.pth", sha256=SHA256, size_bytes=len(CONTENT)), tmp_path, lambda *_: None)
    assert (tmp_path / "m" / "b.pth").read_text() == "mine"
    assert server.ranges == []


@pytest.mark.parametrize("name", ["a/other.bin", "other.pth"])
def test_what_cannot_be_fetched_names_address_and_target(name: str, server: Server, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentSetupError) as caught:
        download(model(server, name), tmp_path, lambda *_: None)
    assert f"Cannot download {server.address}/" in str(caught.value)
    assert f"{name} to {tmp_path / 'm' / name}: " in str(caught.value)
    assert f"put the file at {tmp_path / 'm' / name} yourself" in str(caught.value)


def test_room_is_needed_before_the_download_begins(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="GiB free, the download takes"):
        download(model(server, "b.pth", size_bytes=1 << 60), tmp_path, lambda *_: None)
    assert server.ranges == []


def test_a_file_is_told_from_another_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert presence(path, PublishedFile("a")) == "missing"
    path.write_bytes(b"xy")
    assert presence(path, PublishedFile("a")) == "unchecked"
    assert presence(path, PublishedFile("a", 3)) == "differs"
    assert presence(path, PublishedFile("a", 2, "0" * 64)) == "present"
    assert presence(path, PublishedFile("a", 2, "0" * 64), read=True) == "differs"
    assert presence(path, PublishedFile("a", 2, downloading.sha256_of(path)), read=True) == "present"
