"""A hub on the loopback: real ranges, its headers, and the faults that networks and mirrors have."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server has and how it misbehaves.

    files: contents by `owner/name/file`; drops: after how many bytes each of the next downloads breaks off; lies: wrong
    checksums by file name; silent: no checksum in headers; pointers: text of git's pointers; ranges: whether it knows
    them; statuses: refusals by path; renamed: old to new repository; asked: (method, path, range) of every request.
    """

    files: dict[str, bytes]
    drops: list[int] = field(default_factory=list)
    lies: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    ranges: bool = True
    redirects: bool = True
    statuses: dict[str, int] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def downloads(self) -> list[tuple[str, str]]:
        """The path's last part and the range of each GET for a file's content."""
        got = [(path, span) for method, path, span in self.asked if method == "GET" and "/cdn/" in path]
        return [(path.rpartition("/")[2], span) for path, span in got]


def digest(name: str, content: bytes) -> str:
    """Return what the hub names: SHA-256 of large files, git's SHA-1 of small ones."""
    if name.endswith(".onnx"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub while the block runs; its `url` is the endpoint."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with _Server(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Say nothing about clients that went away."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Say nothing."""

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        hub, path = self.hub, self.path
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        owner, name, kind, revision, file = path.removeprefix("/cdn").strip("/").split("/")
        if f"{owner}/{name}" in hub.renamed:
            there = path.replace(f"{owner}/{name}", hub.renamed[f"{owner}/{name}"])
            return self._say(307, {"Location": there})
        if file in hub.statuses:
            return self._say(hub.statuses[file])
        content = hub.files.get(f"{owner}/{name}/{file}")
        if content is None or revision not in ("main", REVISION):
            return self._say(404)
        if kind == "raw":
            return self._say(200, {}, self._pointer(file, content))
        large = file.endswith(".onnx")
        named = hub.lies.get(file) or digest(file, content)
        tag = "X-Linked-Etag" if large else "ETag"
        headers = {} if hub.silent else {tag: f'"{named}"', "X-Linked-Size": str(len(content))}
        if not hub.silent:
            headers["X-Repo-Commit"] = REVISION
        if not path.startswith("/cdn") and hub.redirects and (large or self.command == "GET"):
            return self._say(302, {**headers, "Location": f"{hub.url.replace('127.0.0.1', 'localhost')}/cdn{path}"})
        if self.command == "HEAD":
            return self._say(200, {**headers, "Content-Length": str(len(content))})
        return self._send(content)

    def _pointer(self, file, content):
        if not file.endswith(".onnx"):
            return content
        found = hashlib.sha256(content).hexdigest()
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{found}\nsize {len(content)}\n".encode()

    def _send(self, content):
        hub, span = self.hub, self.headers.get("Range", "")
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and hub.ranges else 0
        if start >= len(content):
            return self._say(416)
        body, status, headers = content[start:], 200, {}
        if span and hub.ranges:
            status, headers = 206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        cut = hub.drops.pop(0) if hub.drops else len(body)
        return self._say(status, {**headers, "Content-Length": str(len(body))}, body[:cut], whole=cut >= len(body))

    def _say(self, status, headers=None, body=b"", whole=True):
        headers = {"Content-Length": str(len(body)), **(headers or {})}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        if not whole:
            self.close_connection = True
            self.wfile.flush()
            self.connection.close()
