"""A web server over a folder that fails on demand, for tests of reading from URLs."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


@dataclass
class Server:
    """`failures[path]`: how many requests still get status `status` before the file is served.

    `cut_after[path]`: bytes after which the connection of the next request breaks off.
    """

    folder: Path
    url: str = ""
    status: int = 503
    ranges: bool = True
    failures: Counter[str] = field(default_factory=Counter)
    cut_after: dict[str, int] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    first_bytes: list[int] = field(default_factory=list)  # where each answer began


@contextlib.contextmanager
def serving(folder: Path) -> Generator[Server]:
    state = Server(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            name = unquote(self.path.lstrip("/").partition("?")[0])
            state.requests[name] += 1
            file = state.folder / name
            if state.failures[name] > 0:
                state.failures[name] -= 1
                return self.empty(state.status)
            if not file.is_file():
                return self.empty(404)
            content = file.read_bytes()
            first, last, status = 0, len(content) - 1, 200
            asked = self.headers.get("Range")
            if asked and state.ranges:
                start, _, end = asked.removeprefix("bytes=").partition("-")
                first, last = int(start), min(int(end or last), last)
                status = 206
            state.first_bytes.append(first)
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            if state.ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last + 1 - first))
            self.end_headers()
            if body:
                part = content[first : last + 1]
                if name in state.cut_after:
                    part = part[: state.cut_after.pop(name)]
                    self.close_connection = True
                self.wfile.write(part)
            return None

        def empty(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_):
            pass  # a reader that has had enough hangs up

    server = Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
