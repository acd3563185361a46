"""Enough of the Hugging Face hub's HTTP API to inspect and download models: listing, tree, resolve with ranges."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """Serves ``root/org/name/…``. ``requests`` keeps (method, path, Range header, bytes sent)."""

    root: Path
    url: str = ""
    gated: set[str] = field(default_factory=set)
    token: str = "hf_good"
    ignore_ranges: bool = False
    silent: bool = False
    """Accepts requests and never answers."""
    released: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, str, str, int]] = field(default_factory=list)

    @property
    def sent(self) -> int:
        return sum(row[3] for row in self.requests)


@contextmanager
def serve(root: Path) -> Iterator[FakeHub]:
    hub = FakeHub(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        if self.hub.silent:
            self.hub.released.wait(60)
            self.close_connection = True
            return
        path = self.path.partition("?")[0]
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path)
        tree = re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = info or tree or file
        folder = self.hub.root / match[1] if match else None
        if not match or folder is None or not folder.is_dir():
            self.error(401, "RepoNotFound")
        elif match[2] not in (None, "main", COMMIT):
            self.error(404, "RevisionNotFound")
        elif file:
            self.file(folder, file[1], file[3], body)
        else:
            self.listing(folder, match[1], tree is not None)

    def listing(self, folder: Path, model: str, tree: bool) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
        if tree:
            rows = [{"type": "file", "path": n, "size": s, "oid": "0" * 40} for n, s in names.items()]
            self.send(200, json.dumps(rows).encode())
            return
        siblings = [{"rfilename": name, "size": size} for name, size in names.items()]
        gated = "auto" if model in self.hub.gated else False
        self.send(
            200, json.dumps({"id": model, "sha": COMMIT, "siblings": siblings, "gated": gated}).encode()
        )

    def file(self, folder: Path, model: str, name: str, body: bool) -> None:
        allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if model in self.hub.gated and not allowed:
            self.error(403, "GatedRepo")
            return
        path = folder / name
        if not path.is_file():
            self.error(404, "EntryNotFound")
            return
        content = path.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and not self.hub.ignore_ranges:
            start, end = int(wanted[1]), int(wanted[2] or len(content) - 1)
            part = content[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
            self.send(206, part, headers, body)
        else:
            self.send(200, content, headers, body)

    def error(self, status: int, code: str) -> None:
        self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def send(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, body: bool = True
    ) -> None:
        self.send_response(status)
        for key, value in {
            "Content-Length": str(len(content)),
            "Accept-Ranges": "bytes",
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        sent = 0
        if body and self.command == "GET":
            try:
                self.wfile.write(content)
                sent = len(content)
            except ConnectionError:
                self.close_connection = True
        self.hub.requests.append((self.command, self.path, self.headers.get("Range", ""), sent))
