"""A server with OpenAI's chat interface on loopback, whose answers a test decides."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Chat:
    """What was asked, and how the server answers."""

    answer: Callable[[str], str | int | bytes]
    """Request -> text of the reply, a status, or a whole body."""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    """Between the bytes of a body."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def chat_server(answer: Callable[[str], str | int | bytes], **settings: Any) -> Iterator[Chat]:
    """Serve until the block ends."""
    chat = Chat(answer, **settings)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["content-length"])))
            chat.asked.append({**content, "path": self.path})
            chat.keys.append(self.headers.get("authorization"))
            said = chat.answer(content["messages"][-1]["content"])
            body = said if isinstance(said, bytes) else b"{}"
            if isinstance(said, str):
                body = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
            self.send_response(said if isinstance(said, int) else 200)
            for name, value in {"Content-Length": str(len(body)), **chat.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):
                for place in range(len(body) if chat.delay_s else 0):
                    self.wfile.write(body[place : place + 1])
                    self.wfile.flush()
                    time.sleep(chat.delay_s)
                if not chat.delay_s:
                    self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    chat.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
