"""The configuration in docs/guides/behind-nginx.md, in front of a real gateway."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.gateway.fakes import Bench, Client, FakeWorker, Seen, Talk, ask, running
from tests.integration.gateway.test_tls import CERTIFICATES, FIRST, Secure
from tests.support.ports import free_port
from tests.support.waiting import wait_until

GUIDE = (Path(__file__).parents[3] / "docs/guides/behind-nginx.md").read_text()
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin")
KEY = "Authorization: Bearer sk-alice-0123456789\r\n"

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    keys = tmp_path / "keys.txt"
    keys.write_text("alice: sk-alice-0123456789\n")
    with running("--api-keys-file", str(keys), "--trusted-proxy", "127.0.0.1") as bench:
        yield bench


@pytest.fixture
def port(bench: Bench, tmp_path: Path) -> Iterator[int]:
    """nginx with the guide's configuration; only its ports, files and certificate are those of the test."""
    port = free_port()
    found = re.search(r"```nginx\n(.*?)```", GUIDE, re.S)
    assert found
    server = found[1].replace("127.0.0.1:8000", f"127.0.0.1:{bench.port}")
    server = server.replace("listen 443", f"listen 127.0.0.1:{port}")
    server = server.replace("/etc/ssl/llm.example.org.pem", str(FIRST))
    server = server.replace("/etc/ssl/llm.example.org.key", str(CERTIFICATES / "first-key.pem"))
    temporary = "".join(
        f"{module}_temp_path {tmp_path}/{module};\n"
        for module in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/nginx.pid; error_log stderr;\n"
        f"events {{}}\nhttp {{ access_log off;\n{temporary}{server}}}\n"
    )
    process = subprocess.Popen(
        [str(NGINX), "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
    )
    try:
        wait_until(lambda: listens(port) or process.poll() is not None, 10, "nginx listens")
        assert process.poll() is None
        yield port
    finally:
        process.terminate()
        process.wait(10)


def listens(port: int) -> bool:
    try:
        Client(port).sock.close()
    except OSError:
        return False
    return True


def serve(bench: Bench, worker: FakeWorker) -> None:
    bench.gateway.auth = {"Authorization": KEY.split(": ", 1)[1].strip()}
    bench.controller.set(worker.replica("qwen"))
    bench.gateway.until_serving("qwen")


def test_each_event_of_a_stream_comes_at_once(bench: Bench, port: int) -> None:
    read = threading.Event()

    def behave(talk: Talk, seen: Seen) -> None:
        talk.start_stream()
        talk.event(b"one")
        assert read.wait(10), "the first event did not reach the client before the second was sent"
        talk.event(b"two")
        talk.end_stream()

    serve(bench, bench.worker(behave))
    with Secure(port, FIRST) as client:
        client.post({"model": "qwen", "stream": True, "messages": []}, extra=KEY)
        client.until(b"data: one\n\n")
        read.set()
        client.until(b"data: two\n\n")


def test_a_client_that_leaves_ends_the_request_at_its_worker(bench: Bench, port: int) -> None:
    worker = bench.worker(lambda talk, _: talk.wait_for_peer_to_leave())
    serve(bench, worker)
    with Secure(port, FIRST) as client:
        client.post({"model": "qwen", "messages": []}, extra=KEY)
        wait_until(lambda: worker.seen)
    wait_until(lambda: worker.left)


def test_only_from_this_machine_metrics_need_no_key(bench: Bench, port: int) -> None:
    assert ask(bench.port, "GET", "/metrics").status == 200
    with Secure(port, FIRST) as client:
        client.send(b"GET /metrics HTTP/1.1\r\nhost: llm.example.org\r\n\r\n")
        assert client.answer("GET").status == 401
