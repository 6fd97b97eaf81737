"""Published weights by their id, from a server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from pokevla.errors import EnvironmentSetupError
from pokevla.weights.conversion.importing import weight_format
from pokevla.weights.published.hub import fetch_from_hub
from tests.unit.weights.published.test_downloading import COMMIT, Handler, Server

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer.json": b"[]",
    "run_me.py": b"raise SystemExit",
}


class HubHandler(Handler):
    """Also answers the listing of a repository, whose address has a query."""

    def answer(self, *, with_body: bool) -> None:
        self.path = self.path.partition("?")[0]
        super().answer(with_body=with_body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    listing = [{"type": "file", "path": name, "size": len(body), "oid": "0" * 40} for name, body in FILES.items()]
    content = Server({f"/me/model/resolve/{COMMIT}/{name}": body for name, body in FILES.items()})
    content.files[f"/api/models/me/model/tree/{COMMIT}"] = json.dumps(listing).encode()
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(HubHandler, content))
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{http.server_address[1]}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # as all other tests are
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield content
    http.shutdown()
    http.server_close()
    thread.join()


def test_only_the_files_that_an_import_reads_are_fetched(server: Server) -> None:
    folder = fetch_from_hub("me/model", COMMIT, weight_format("qwen2").hub_patterns)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: body for name, body in FILES.items() if name != "run_me.py"
    }
    fetched = len(server.ranges)
    assert fetch_from_hub("me/model", COMMIT, weight_format("qwen2").hub_patterns) == folder
    assert len(server.ranges) <= fetched + 1  # at most the listing again


def test_an_id_that_the_server_does_not_have_says_where_to_put_the_files(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POKEVLA_MODELS", str(tmp_path))
    with pytest.raises(EnvironmentSetupError) as caught:
        fetch_from_hub("me/other", COMMIT, ["config.json", "model.safetensors"])
    assert f"Cannot get me/other at {COMMIT[:10]}: " in str(caught.value)
    assert f"Put its files (config.json, model.safetensors) into {tmp_path / 'other'}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_patterns_name_shards_beside_their_index() -> None:
    patterns = weight_format("qwen2").hub_patterns
    assert {"model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"} <= set(patterns)
    assert {"pytorch_model-*-of-*.bin", "config.json", "tokenizer.json"} <= set(patterns)
